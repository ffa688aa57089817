"""Our own format: `episodes.safetensors`, all steps one after another, and `manifest.json`.

Tensors: `observation.<field>` (F, *shape), `action` and `executed_action` (F, A) float32, and
`num_steps` (E,) int64, which says where episodes end. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.errors import DemonstrationError
from grpo_ros.files import write_atomically
from grpo_ros.training.demonstrations.manifest import (
    RECORD_AGAIN,
    Manifest,
    Origin,
    check_files,
    file_record,
    read_manifest,
)
from grpo_ros.training.demonstrations.matching import check_contract, check_episode
from grpo_ros.training.demonstrations.recording import Episode, Recording

MANIFEST, DATA = "manifest.json", "episodes.safetensors"
PREFIX = "observation."


def write(folder: Path, recording: Recording, contract: Contract, origin: Origin) -> None:
    """Write a recording into an existing empty folder."""
    episodes = recording.episodes
    tensors = {
        f"{PREFIX}{name}": torch.cat([episode.obs[name] for episode in episodes])
        for name in episodes[0].obs
    }
    tensors["action"] = torch.cat([episode.action for episode in episodes])
    tensors["executed_action"] = torch.cat([episode.executed for episode in episodes])
    tensors["num_steps"] = torch.tensor([episode.num_steps for episode in episodes])
    data = {name: value.contiguous() for name, value in tensors.items()}
    write_atomically(folder / DATA, safetensors.torch.save(data))
    manifest = Manifest(
        contract,
        contract.sha256,
        len(episodes),
        recording.num_steps,
        recording.attempts,
        origin,
        {DATA: file_record(folder / DATA)},
    )
    write_atomically(folder / MANIFEST, manifest.to_json())


def read(folder: Path, contract: Contract) -> Recording:
    """Return the episodes in a folder, with what the contract observes.

    Raises:
        DemonstrationError: a file is absent or damaged, or does not fit the contract.
    """
    manifest = read_manifest(folder / MANIFEST)
    check_contract(folder, manifest.contract, contract)
    if set(manifest.files) != {DATA}:
        raise DemonstrationError(
            f"{folder / MANIFEST} lists {sorted(manifest.files)}", expected=f"['{DATA}']"
        )
    check_files(folder, manifest.files)
    path = folder / DATA
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as problem:
        raise DemonstrationError(
            f"{path} cannot be read: {problem}", expected="safetensors", remedy=RECORD_AGAIN
        ) from None
    lengths = _lengths(path, tensors, manifest, contract)
    parts = {
        name: torch.split(value, lengths) for name, value in tensors.items() if name != "num_steps"
    }
    episodes = tuple(
        Episode(
            {f.name: parts[f"{PREFIX}{f.name}"][index].clone() for f in contract.observation},
            parts["action"][index].clone(),
            parts["executed_action"][index].clone(),
        )
        for index in range(len(lengths))
    )
    for index, episode in enumerate(episodes):
        check_episode(path, index, episode, contract)
    return Recording(episodes, manifest.attempts)


def _lengths(
    path: Path, tensors: dict[str, Tensor], manifest: Manifest, contract: Contract
) -> list[int]:
    """Return the episodes' lengths, after checking that every tensor is there and has them."""
    wanted = {f"{PREFIX}{field.name}" for field in contract.observation}
    if missing := (wanted | {"action", "executed_action", "num_steps"}) - set(tensors):
        raise DemonstrationError(
            f"{path} has no {', '.join(sorted(missing))}",
            expected=json.dumps(sorted(wanted)),
            remedy=RECORD_AGAIN,
        )
    lengths = tensors["num_steps"]
    if lengths.dtype != torch.int64 or lengths.dim() != 1:
        raise DemonstrationError(
            f"{path}: 'num_steps' is {lengths.dtype} {tuple(lengths.shape)}",
            expected="int64 (E,)",
            remedy=RECORD_AGAIN,
        )
    total = manifest.num_steps
    if len(lengths) != manifest.episodes or int(lengths.sum()) != total or not len(lengths):
        raise DemonstrationError(
            f"{path} has {len(lengths)} episodes of {int(lengths.sum())} steps together",
            expected=f"at least 1, and {manifest.episodes} of {total}, as its manifest says",
            remedy=RECORD_AGAIN,
        )
    if bool((lengths < 1).any()):
        raise DemonstrationError(f"{path} has an empty episode", remedy=RECORD_AGAIN)
    for name, value in tensors.items():
        if name != "num_steps" and (not value.dim() or len(value) != total):
            raise DemonstrationError(
                f"{path}: '{name}' is {tuple(value.shape)}",
                expected=f"{total} steps",
                remedy=RECORD_AGAIN,
            )
    return [int(length) for length in lengths]
