"""Blocks of layers that are computed again for their gradient, so that little is kept of them.

Gradient checkpointing (Chen et al., 1604.06174), by torch: of a block autograd keeps what goes in;
when its gradient is asked for, it is computed once more. Gradients are the same, as nothing in a
block is random; an update takes about a third longer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recomputed[T](function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Return what a function gives; where gradients are wanted, it is called again for them."""
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    result: T = checkpoint(
        function, *args, use_reentrant=False, preserve_rng_state=False, **kwargs
    )
    return result


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Let each of these modules be computed again for its gradient, whoever calls it.

    Names of parameters stay, and copies of a module do as it does.
    """
    for block in blocks:
        kind = type(block)
        block.__class__ = _kinds.setdefault(kind, _recomputing(kind))


_kinds: dict[Any, type[nn.Module]] = {}


def _recomputing(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a class of modules that do what `kind` does, and are computed again."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return recomputed(functools.partial(kind.forward, self), *args, **kwargs)

    return type(f"Recomputing{kind.__name__}", (kind,), {"forward": forward})
