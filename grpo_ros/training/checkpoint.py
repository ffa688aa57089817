"""Checkpoints: the learner's whole state as safetensors and JSON, written atomically.

A checkpoint is a folder with `state.safetensors` (tensors), `state.json` (everything else) and
`manifest.json` (schema and SHA-256 of both). It is written under a temporary name, flushed to disk
and renamed, so a crash leaves the previous one valid. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from grpo_ros.errors import CheckpointError
from grpo_ros.files import sync, write_atomically

SCHEMA = 2
FORMER = ".former"
"""Ends the hidden name of a checkpoint that is being replaced by one of its name."""
TENSOR = "__tensor__"
BEST = "best"
"""Name of the checkpoint of the highest success; the others are numbered."""


def split_state(state: Any, prefix: str = "") -> tuple[dict[str, torch.Tensor], Any]:
    """Return (tensors by path, the same tree with tensors replaced by their paths)."""
    if isinstance(state, torch.Tensor):
        return {prefix: state.detach().cpu().contiguous().clone()}, {TENSOR: prefix}
    tensors: dict[str, torch.Tensor] = {}
    if isinstance(state, Mapping):
        tree: dict[str, Any] = {}
        for key, value in state.items():
            kind = "i" if isinstance(key, int) else "s"
            found, tree[f"{kind}:{key}"] = split_state(value, f"{prefix}/{key}")
            tensors.update(found)
        return tensors, tree
    if isinstance(state, list | tuple):
        items = []
        for index, value in enumerate(state):
            found, item = split_state(value, f"{prefix}/{index}")
            tensors.update(found)
            items.append(item)
        return tensors, items
    if state is None or isinstance(state, str | int | float | bool):
        return {}, state
    raise CheckpointError(f"state '{prefix}' is a {type(state).__name__}", expected="plain data")


def join_state(tensors: Mapping[str, torch.Tensor], tree: Any) -> Any:
    """Undo `split_state`; tuples come back as lists."""
    if isinstance(tree, dict):
        if set(tree) == {TENSOR}:
            return tensors[tree[TENSOR]]
        return {
            int(key[2:]) if key[0] == "i" else key[2:]: join_state(tensors, value)
            for key, value in tree.items()
        }
    if isinstance(tree, list):
        return [join_state(tensors, item) for item in tree]
    return tree


def state_hash(state: Any) -> str:
    """Return the SHA-256 of a state: equal hashes mean equal bits."""
    tensors, tree = split_state(state)
    digest = hashlib.sha256(json.dumps(tree, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> Path:
    """Write `state` as the checkpoint `folder`, atomically; return the folder.

    Raises:
        CheckpointError: a tensor is not finite (such a state must never be kept), or the disk
            refuses; a checkpoint that was there before stays valid.
    """
    tensors, tree = split_state(state)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"checkpoint not written: '{name}' is not finite")
    files = {
        "state.safetensors": safetensors.torch.save(tensors),
        "state.json": json.dumps(tree, sort_keys=True).encode(),
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files["manifest.json"] = json.dumps(
        {"schema": SCHEMA, "sha256": hashes, "state_hash": state_hash(state)}, indent=1
    ).encode()
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    former = folder.with_name(f".{folder.name}{FORMER}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, data in files.items():
            write_atomically(temporary / name, data)
        if folder.exists():
            shutil.rmtree(former, ignore_errors=True)
            folder.rename(former)
        temporary.rename(folder)
        sync(folder.parent)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        if former.exists() and not folder.exists():
            former.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {folder} not written: {error.strerror}",
            remedy="free some space; the previous checkpoint is intact",
        ) from error
    return folder


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Return the state of a checkpoint.

    Raises:
        CheckpointError: a file is missing, damaged or of another schema.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest.get("schema") != SCHEMA:
            raise CheckpointError(
                f"checkpoint {folder} has schema {manifest.get('schema')}", expected=f"{SCHEMA}"
            )
        files = {}
        for name in ("state.safetensors", "state.json"):
            files[name] = (folder / name).read_bytes()
            if hashlib.sha256(files[name]).hexdigest() != manifest["sha256"][name]:
                raise CheckpointError(
                    f"checkpoint file {folder / name} is damaged", expected="the manifest's hash"
                )
        state = join_state(
            safetensors.torch.load(files["state.safetensors"]), json.loads(files["state.json"])
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"checkpoint {folder} holds a {type(state).__name__}")
    return state


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders below `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.isdigit())


def has_checkpoint(folder: Path) -> bool:
    """Return whether there is one, if only one that was being replaced when a process died."""
    return bool(checkpoints(folder)) or any(folder.glob(f".[0-9]*{FORMER}"))


def drop_unfinished(folder: Path) -> None:
    """Put in order what a process left that was killed while it wrote a checkpoint.

    What has only begun is removed; what was to be replaced is taken back, if it was not yet.
    """
    for path in folder.glob(f".*{FORMER}"):
        replaced = folder / path.name[1 : -len(FORMER)]
        if not replaced.exists():
            path.rename(replaced)
        else:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def newest_valid(folder: Path) -> tuple[Path | None, dict[str, Any] | None, list[str]]:
    """Return the newest readable checkpoint, its state, and why newer ones were skipped."""
    skipped: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return path, load_checkpoint(path), skipped
        except CheckpointError as error:
            skipped.append(str(error))
    return None, None, skipped
