"""Tensors that may be shards of a whole: a DTensor on each rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def is_sharded(value: Tensor) -> bool:
    """Return whether a tensor is a shard. It does not import what makes shards."""
    return hasattr(value, "full_tensor")


def local(value: Tensor) -> Tensor:
    """Return the part of a tensor that is on this rank, which shares its memory."""
    shard: Any = value
    part: Tensor = shard.to_local() if is_sharded(value) else value
    return part


def whole_tree(tree: Any) -> Any:
    """Return nested mappings with every shard made whole. Collective."""
    if isinstance(tree, Tensor):
        shard: Any = tree
        return shard.full_tensor() if is_sharded(tree) else tree
    if isinstance(tree, Mapping):
        return {key: whole_tree(value) for key, value in tree.items()}
    return tree


def placed_like(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor as it lies on this rank: as a shard where `like` is one."""
    if not is_sharded(like):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    value = value.to(device=like.device_mesh.device_type, dtype=like.dtype)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def placed_tree(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors as they lie on this rank, by the tensors of the same names."""
    return {n: placed_like(v, like[n]) if n in like else v for n, v in state.items()}
