"""What is written beside a run's figures: what it is judged by, and where a policy is from."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_ros import configuration, typed
from grpo_ros.contract import TASK_SETTINGS, Contract
from grpo_ros.files import write_atomically
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Simulator, unwatched
from grpo_ros.simulators.measured import measure
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState, scene_arrays, scene_hash
from grpo_ros.training.placement import Losses
from grpo_ros.training.run_directory import CONTRACT_FILE, RunDirectory
from grpo_ros.training.settings import TrainConfig
from grpo_ros.versions import versions


def write_terms(run: RunDirectory, contract: Contract, task: Task, keys: Sequence[Key]) -> None:
    """Write the contract, and the initial states of the held-out keys."""
    write_atomically(run.path / CONTRACT_FILE, contract.to_json().encode())
    buffer = io.BytesIO()
    arrays: dict[str, Any] = scene_arrays(task.sample(list(keys)))
    np.savez_compressed(buffer, **arrays)
    write_atomically(run.path / "heldout.npz", buffer.getvalue())


def write_capabilities(run: RunDirectory, simulator: Simulator, losses: Losses) -> str:
    """Measure what groups and restores of a simulator are worth; keep it, and say it in words."""
    with unwatched(simulator):
        measured = losses.redo(lambda: measure(simulator))
    run.write_json("capabilities.json", dataclasses.asdict(measured))
    return str(measured)


def origin_of(config: TrainConfig, env_steps: int) -> dict[str, Any]:
    """Return where a policy is from, by name, as its contract keeps it."""
    return {
        "task": config.task,
        TASK_SETTINGS: typed.encode(configuration.section(config, "task")),
        "algorithm": config.algorithm,
        "policy": config.policy,
        "simulator": config.simulator,
        "seed": config.seed,
        "env_steps": env_steps,
        "versions": versions(),
        "config_hash": configuration.config_hash(config),
    }


def circumstances(config: TrainConfig, held_out: SceneState, train_s: float) -> dict[str, Any]:
    """Return what a result was found with, by name, as evaluation.json keeps it."""
    return {
        "train_seconds": round(train_s, 2),
        "seed": config.seed,
        "heldout_sha256": scene_hash(held_out),
        "versions": versions(),
    }
