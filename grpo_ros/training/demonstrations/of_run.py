"""Demonstrations of a run: what its settings name, read and noted in its folder."""

from __future__ import annotations

from pathlib import Path

from grpo_ros.contract import Contract
from grpo_ros.simulators.base import Simulator
from grpo_ros.training.demonstrations.folder import read_demonstrations
from grpo_ros.training.demonstrations.recording import Demonstrations, record, to_samples
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.placement import Losses
from grpo_ros.training.run_directory import RunDirectory
from grpo_ros.training.settings import TrainConfig

NOTE = "demonstrations.json"


def demonstrations_of(
    config: TrainConfig,
    contract: Contract,
    run: RunDirectory,
    simulator: Simulator,
    losses: Losses,
    observer: TrainingObserver,
) -> Demonstrations | None:
    """Return the samples that a run clones; None where it learns from scratch.

    They are those in the folder `demonstrations.path`, which the run's demonstrations.json then
    tells, else what the task's script gives now.

    Raises:
        DemonstrationError: what is in the folder is damaged, or does not fit the contract.
        MissingExtraError: a LeRobotDataset, and LeRobot is not installed.
        TrainingError: the script fails too often.
    """
    settings, say = config.demonstrations, observer.on_message
    if settings.path:
        stored = read_demonstrations(Path(settings.path), contract)
        run.write_json(NOTE, stored.to_json())
        say(str(stored))
        return to_samples(stored.recording, contract.chunk_size)
    if not settings.episodes:
        return None
    episodes, noise, told = settings.episodes, settings.action_noise, observer.on_recorded
    data = losses.redo(lambda: record(simulator, episodes, noise, config.seed, told))
    say(f"{data.episodes} demonstrations of {data.attempts} attempts")
    return data


def provenance(run: RunDirectory) -> dict[str, str]:
    """Return what a policy's provenance tells of the demonstrations that a run has read."""
    note = run.read_json(NOTE) or {}
    return {"demonstrations_sha256": note["sha256"]} if "sha256" in note else {}
