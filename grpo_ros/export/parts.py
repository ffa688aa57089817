"""A policy as several files: graphs of backbone and head, and their weights; see `companions`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.errors import PolicyFileError
from grpo_ros.export import companions
from grpo_ros.export.companions import DATA_SUFFIX, GRAPH_SUFFIX, Companion
from grpo_ros.export.metadata import (
    ACTION_OUTPUT,
    COMPANIONS_KEY,
    FEATURES,
    NOISE_INPUT,
    policy_metadata,
    sealed,
)
from grpo_ros.export.weights_beside import DataFile, attach_weights, set_location, trace
from grpo_ros.files import sync, write_synced
from grpo_ros.policies.base import PolicyInParts

OPSET = 17
HASH_DIGITS = 12
"""Of a file's SHA-256, in its name."""


def write_parts(
    policy: PolicyInParts, contract: Contract, path: Path, example: Mapping[str, Tensor]
) -> None:
    """Write a policy's graphs and weights into the folder of `path`, which is its own.

    Beside the policy it takes the memory of the largest weight.

    Args:
        policy: float32 on the CPU, and a torch.nn.Module; left in evaluation mode.
        contract: put in as it is.
        path: of the policy file.
        example: field -> (N, *field_shape), two rows or more.

    Raises:
        PolicyFileError: a field has the name of another input or output.
    """
    import onnx

    assert isinstance(policy, nn.Module)
    policy.eval()
    names = [field.name for field in contract.observation]
    check_names(names, {NOISE_INPUT, ACTION_OUTPUT, FEATURES})
    seen = {name: example[name][:2] for name in names if name in policy.seen_names}
    rest = {name: example[name][:2] for name in names if name not in seen}
    stem = path.name.removesuffix(GRAPH_SUFFIX)

    def look(*values: Tensor) -> Tensor:
        return policy.features(dict(zip(seen, values, strict=True)))

    def decide(*values: Tensor) -> Tensor:
        features, *observed = values
        noise = observed.pop() if contract.noise_shape else None
        return policy.decide_on(features, dict(zip(rest, observed, strict=True)), noise)

    with torch.no_grad():
        features = policy.features(seen)
    backbone = trace(policy, look, seen, FEATURES, OPSET)
    backbone_data = _write_data(path.parent, f"{stem}_backbone", backbone, policy)
    data = backbone.SerializeToString()
    backbone_graph = _named(f"{stem}_backbone", GRAPH_SUFFIX, len(data), _sha256(data))
    write_synced(path.with_name(backbone_graph.name), data)
    inputs = {FEATURES: features, **rest}
    if contract.noise_shape:
        inputs[NOISE_INPUT] = torch.zeros(2, *contract.noise_shape)
    head = trace(policy, decide, inputs, ACTION_OUTPUT, OPSET)
    head_data = _write_data(path.parent, stem, head, policy)
    listed = [file for file in (backbone_graph, backbone_data, head_data) if file is not None]
    onnx.helper.set_model_props(head, policy_metadata(contract, companions.to_json(listed)))
    write_synced(path, sealed(head.SerializeToString()))


def install(staged: Path, path: Path, beside: Sequence[Companion]) -> None:
    """Put a complete policy where it is to be: its companions first, its file last, by renaming.

    Companions of the policy that was there, by their names, are deleted afterwards.

    Args:
        staged: in a folder on the same file system.
        path: where to. beside: the companions, in the folder of `staged`.
    """
    old = _companions_of(path)
    for companion in beside:
        file = staged.with_name(companion.name)
        file.chmod(0o644)
        file.replace(path.with_name(companion.name))
    sync(path.parent)
    staged.chmod(0o644)
    staged.replace(path)
    sync(path.parent)
    for name in old - {companion.name for companion in beside}:
        with contextlib.suppress(OSError):
            path.with_name(name).unlink()


def check_names(names: Collection[str], taken: Collection[str]) -> None:
    """Raise PolicyFileError where a field has the name of another input or output."""
    if clash := set(names) & set(taken):
        raise PolicyFileError(
            f"observation fields {sorted(clash)} have the name of another input or output",
            remedy="rename the field",
        )


def _write_data(folder: Path, stem: str, model: Any, policy: nn.Module) -> Companion | None:
    """Write the weights that a graph uses; return their file, None where they are all small."""
    temporary = folder / f"{stem}{DATA_SUFFIX}.part"
    with temporary.open("xb") as file:
        data = DataFile(file)
        attach_weights(model, policy, data)
        file.flush()
        os.fsync(file.fileno())
    if not data.num_bytes:
        temporary.unlink()
        return None
    written = _named(stem, DATA_SUFFIX, data.num_bytes, data.sha256)
    set_location(model, written.name)
    temporary.replace(folder / written.name)
    return written


def _named(stem: str, suffix: str, num_bytes: int, sha256: str) -> Companion:
    name = f"{stem}-{sha256[:HASH_DIGITS]}{suffix}"
    if not companions.is_plain(name):
        raise PolicyFileError(
            f"companions of a policy cannot be called {name!r}",
            expected=f"a name of up to {companions.MAX_NAME} printable characters that does not "
            "begin with '.'",
            remedy="export to another name",
        )
    return Companion(name, num_bytes, sha256)


def _companions_of(path: Path) -> set[str]:
    """Return what an older policy of this name lists, of names that only its companions have."""
    import onnx

    stem = re.escape(path.name.removesuffix(GRAPH_SUFFIX))
    own = re.compile(rf"{stem}(_backbone)?-[0-9a-f]{{{HASH_DIGITS}}}(\.onnx|\.data)")
    try:
        model = onnx.load_model(path, load_external_data=False)
        listed = {entry.key: entry.value for entry in model.metadata_props}
        found = companions.from_json(path, listed[COMPANIONS_KEY])
    except Exception:  # whatever is there instead, nothing of it is deleted
        return set()
    return {companion.name for companion in found if own.fullmatch(companion.name)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
