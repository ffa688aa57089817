"""A checkpoint of a run as a policy file, without training on."""

from __future__ import annotations

from pathlib import Path

from grpo_ros.configuration import merge, read_layer
from grpo_ros.contract import Contract
from grpo_ros.deployment.matching import contract_differences
from grpo_ros.errors import CheckpointError
from grpo_ros.training.checkpoint import load_checkpoint, newest_valid
from grpo_ros.training.placement import without_ros
from grpo_ros.training.run_directory import CONFIG_FILE, CONTRACT_FILE, RunDirectory
from grpo_ros.training.settings import TrainConfig
from grpo_ros.training.trainer import Trainer


def export_checkpoint(run_folder: Path, wanted: str, path: Path | None) -> tuple[str, Path]:
    """Write a run's checkpoint as ONNX; return both names.

    Args:
        run_folder: of the run.
        wanted: name of the checkpoint, or its number; empty: the newest that can be read.
        path: of the file; None: the run's own.

    Raises:
        CheckpointError: there is none of that name, none that can be read, or robot or task are
            no longer those that were trained.
    """
    run = RunDirectory(run_folder)
    config = merge(TrainConfig, [read_layer(run.path / CONFIG_FILE)])
    checkpoint, state, skipped = newest_valid(run.checkpoints)
    if wanted:
        checkpoint = run.checkpoints / (wanted.zfill(6) if wanted.isdigit() else wanted)
        state = load_checkpoint(checkpoint)
    if checkpoint is None or state is None:
        raise CheckpointError(f"{run.path} has no readable checkpoint ({'; '.join(skipped)})")
    trainer = Trainer(without_ros(config), run)
    try:
        _check_unchanged(trainer.contract, run)
        trainer.load_state(state)
        # A result belongs to the policy that it was measured with, and to no other.
        result = run.read_json("evaluation.json") or {}
        is_its_own = result.get("env_steps") == trainer.env_steps
        names = ("successes", "episodes", "wilson_95") if is_its_own else ()
        evaluation = {"evaluation": {name: result[name] for name in names}} if names else {}
        written = trainer.export(path or run.policy, **evaluation)
    finally:
        trainer.simulator.close()
    return checkpoint.name, written


def _check_unchanged(contract: Contract, run: RunDirectory) -> None:
    """Raise CheckpointError where a contract that is made now is not of what was trained."""
    try:
        trained = Contract.from_json((run.path / CONTRACT_FILE).read_text())
    except OSError as problem:
        raise CheckpointError(
            f"run {run.path} has no {CONTRACT_FILE} ({problem})",
            expected="the contract that it was trained by",
        ) from problem
    differences = contract_differences(contract, trained)
    if differences:
        raise CheckpointError(
            f"run {run.path} was trained with another robot or task than there is now: "
            + "; ".join(differences),
            expected=f"what its {CONTRACT_FILE} says",
            remedy="restore the robot's and the task's files, or train again",
        )
