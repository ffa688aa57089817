"""A checkpoint of a run as a policy file, without training on."""

from __future__ import annotations

from pathlib import Path

from grpo_ros.configuration import merge, read_layer
from grpo_ros.errors import CheckpointError
from grpo_ros.training.checkpoint import load_checkpoint, newest_valid
from grpo_ros.training.demonstrations.of_run import provenance
from grpo_ros.training.placement import without_ros
from grpo_ros.training.resume import run_hash
from grpo_ros.training.run_directory import CONFIG_FILE, RunDirectory
from grpo_ros.training.settings import TrainConfig
from grpo_ros.training.trainer import Trainer


def export_checkpoint(run_folder: Path, wanted: str, path: Path | None) -> tuple[str, Path]:
    """Write a run's checkpoint as ONNX; return both names.

    Args:
        run_folder: of the run.
        wanted: name of the checkpoint, or its number; empty: the newest that can be read.
        path: of the file; None: the run's own.

    Raises:
        CheckpointError: there is none of that name, none that can be read, or the robot or the
            task is no longer the one that was trained.
    """
    run = RunDirectory(run_folder)
    config = merge(TrainConfig, [read_layer(run.path / CONFIG_FILE)])
    _check_unchanged(config, run)
    checkpoint, state, skipped = newest_valid(run.checkpoints)
    if wanted:
        checkpoint = run.checkpoints / (wanted.zfill(6) if wanted.isdigit() else wanted)
        state = load_checkpoint(checkpoint)
    if checkpoint is None or state is None:
        raise CheckpointError(f"{run.path} has no readable checkpoint ({'; '.join(skipped)})")
    trainer = Trainer(without_ros(config), run)
    try:
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


def _check_unchanged(config: TrainConfig, run: RunDirectory) -> None:
    """Raise CheckpointError where a contract that is made now is not of what was trained.

    Demonstrations need not be there any more: what was read of them is noted in the run.
    """
    cloned = provenance(run).get("demonstrations_sha256", "")
    trained = (run.read_json("status.json") or {}).get("config_hash")
    if run_hash(config, cloned) != trained:
        raise CheckpointError(
            f"run {run.path} was trained with another robot description, task file or version "
            f"of the settings than there is now",
            expected="those whose hash is in its status.json: a policy file says what it was "
            "trained with",
            remedy="restore the robot's and the task's files, or export with the version of "
            "grpo_ros that trained it; or train again",
        )
