"""Which run to open: a new one, or an unfinished one of the same configuration."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from grpo_ros import configuration
from grpo_ros.distributed.ranks import Ranks
from grpo_ros.errors import CheckpointError, TrainingError
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.registry import PolicyConfig
from grpo_ros.robots.meshes import mesh_files
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.checkpoint import (
    drop_unfinished,
    join_state,
    newest_valid,
    split_state,
)
from grpo_ros.training.demonstrations import folder_sha256
from grpo_ros.training.demonstrations.manifest import file_record
from grpo_ros.training.run_directory import (
    CONFIG_FILE,
    FINISHED,
    RunDirectory,
    UnwrittenRun,
    create_run,
    find_resumable,
)
from grpo_ros.training.settings import TrainConfig

PRETRAINED = (".json", ".jinja", ".safetensors", ".txt")
PACKAGE = Path(configuration.__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Resumed:
    """A run, and the state it goes on from; None where it starts."""

    run: RunDirectory
    state: dict[str, Any] | None = None


def open_run_on_ranks(config: TrainConfig, say: Callable[[str], None], ranks: Ranks) -> Resumed:
    """Open a run on rank 0, and give the others where it is and what it goes on from.

    Raises:
        RankError: on the other ranks, where it failed on rank 0.
        TrainingError, CheckpointError: on rank 0, as `open_run`.
    """
    if ranks.num == 1:
        return open_run(config, say)
    opened: list[Resumed] = []

    def work() -> tuple[str, Any, dict[str, Any]]:
        found = open_run(config, say)
        opened.append(found)
        tensors, tree = split_state(found.state)
        shapes = {
            name: (list(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in tensors.items()
        }
        return str(found.run.path), tree, shapes

    path, tree, shapes = ranks.on_first(work)
    tensors = split_state(opened[0].state)[0] if opened else {}
    for name, (shape, dtype) in shapes.items():
        empty = torch.empty(tuple(shape), dtype=getattr(torch, dtype))
        value = tensors.setdefault(name, empty)
        ranks.copy_first(value)
    return opened[0] if opened else Resumed(UnwrittenRun(Path(path)), join_state(tensors, tree))


def open_run(config: TrainConfig, say: Callable[[str], None]) -> Resumed:
    """Open the run that `config.resume` asks for, saying which and why.

    Raises:
        TrainingError: a named run is missing, finished, or of another configuration.
        CheckpointError: a named run has no readable checkpoint.
        DemonstrationError: there are no demonstrations where the configuration says.
    """
    output = Path(config.output)
    wanted = run_hash(config)
    if config.resume == "auto":
        found, skipped = find_resumable(output, config.task, config.algorithm, wanted)
        for reason in skipped:
            say(f"not resumed: {reason}")
        if found is not None:
            return _resume(found, say)
    elif config.resume != "never":
        return _resume(_named(Path(config.resume), wanted), say)
    run = create_run(output, config.task, config.algorithm, config.seed)
    settings = configuration.chosen_settings(config)
    (run.path / CONFIG_FILE).write_text(configuration.to_yaml(settings))
    run.set_state("new", config_hash=wanted)
    say(f"new run {run.path}")
    return Resumed(run)


def run_hash(config: TrainConfig) -> str:
    """Return the hash of all that decides a run's results.

    That is: settings, and the content of what they name: the data that is cloned, a pretrained
    checkpoint, the robot's description with its meshes, and the file of a task that is not this
    package's.

    Raises:
        DemonstrationError: there are no demonstrations where the configuration says.
        TrainingError: another of these files cannot be read.
    """
    parts = [configuration.config_hash(config)]
    if config.demonstrations.path:
        parts.append(folder_sha256(Path(config.demonstrations.path)))
    files = _pretrained(configuration.section(config, "policy"))
    task = make_task(config.task, configuration.section(config, "task"))
    if not isinstance(task, EnvironmentTask):
        parts.append(task.robot.sha256)
        files += mesh_files(task.robot.urdf, task.robot.urdf_path)
        source = Path(inspect.getfile(type(task))).resolve()
        if not source.is_relative_to(PACKAGE):
            files.append(source)
    try:
        parts += [file_record(file).sha256 for file in files]
    except OSError as problem:
        raise TrainingError(
            f"{problem.filename}: {problem.strerror}",
            expected="a file that can be read: its content decides whether a run is gone on with",
        ) from None
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _pretrained(policy: PolicyConfig) -> list[Path]:
    """Return the files of a policy's checkpoint, of which a run keeps only what it trains."""
    if not isinstance(policy, Gr00tConfig) or not policy.policy_path:
        return []
    folder = Path(policy.policy_path)
    folders = (folder, Path(policy.tokenizer_path or folder / "tokenizer"))
    files = sorted(file for each in folders for file in each.glob("*"))
    return [file for file in files if file.suffix in PRETRAINED and file.is_file()]


def _named(path: Path, wanted: str) -> RunDirectory:
    run = RunDirectory(path)
    status = run.read_json("status.json")
    if status is None:
        raise TrainingError(
            f"resume '{path}' is not a run directory", expected="status.json in it"
        )
    if status.get("state") == FINISHED:
        raise TrainingError(f"run {path} is finished", remedy="start a new one: resume:=never")
    if status.get("config_hash") != wanted:
        raise TrainingError(
            f"run {path} has another configuration",
            expected="its settings, demonstrations, robot description and task file",
            remedy=f"compare with {path / CONFIG_FILE} and, where there are, with "
            "demonstrations.json and contract.json",
        )
    return run


def _resume(run: RunDirectory, say: Callable[[str], None]) -> Resumed:
    run.hold()
    drop_unfinished(run.checkpoints)
    checkpoint, state, skipped = newest_valid(run.checkpoints)
    for reason in skipped:
        say(f"skipped: {reason}")
    if checkpoint is None or state is None:
        raise CheckpointError(f"run {run.path} has no readable checkpoint")
    run.cut_back(state["iteration"])
    say(f"resuming {run.path} from iteration {state['iteration']}")
    return Resumed(run, state)
