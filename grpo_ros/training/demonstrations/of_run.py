"""Demonstrations of a run: what its settings name, read and noted in its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from grpo_ros.contract import Contract
from grpo_ros.training.demonstrations.folder import read_demonstrations
from grpo_ros.training.demonstrations.recording import Demonstrations, to_samples
from grpo_ros.training.run_directory import RunDirectory

NOTE = "demonstrations.json"


def kept_demonstrations(
    path: str, contract: Contract, run: RunDirectory, say: Callable[[str], None]
) -> Demonstrations | None:
    """Return the samples in the folder that `demonstrations.path` names; None where it is empty.

    The run's demonstrations.json tells which data they were.

    Raises:
        DemonstrationError: they are damaged, or do not fit the contract.
        MissingExtraError: a LeRobotDataset, and LeRobot is not installed.
    """
    if not path:
        return None
    stored = read_demonstrations(Path(path), contract)
    run.write_json(NOTE, stored.to_json())
    say(str(stored))
    return to_samples(stored.recording, contract.chunk_size)


def provenance(run: RunDirectory) -> dict[str, str]:
    """Return what a policy's provenance tells of the demonstrations that a run has read."""
    note = run.read_json(NOTE) or {}
    return {"demonstrations_sha256": note["sha256"]} if "sha256" in note else {}
