"""A run's folder: what is in it, who holds it, and which one to resume."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grpo_ros.errors import TrainingError
from grpo_ros.files import read_json_lines, write_atomically
from grpo_ros.training import run_lock
from grpo_ros.training.checkpoint import has_checkpoint

FINISHED = "finished"
CONFIG_FILE, CONTRACT_FILE = "config.yaml", "contract.json"
"""What a run's folder keeps its settings and its contract in."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Paths of one run: `<output>/<task>/<algorithm>/<date>_<seed>/`."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Folder of numbered checkpoints."""
        return self.path / "checkpoints"

    @property
    def failures(self) -> Path:
        """Folder of rollouts that failed."""
        return self.path / "failures"

    @property
    def metrics(self) -> Path:
        """One JSON line per iteration, without wall-clock times."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """One JSON line of wall-clock times per iteration."""
        return self.path / "timing.jsonl"

    @property
    def decisions(self) -> Path:
        """One JSON line for each change of the way of learning, with its reason."""
        return self.path / "decisions.jsonl"

    @property
    def evaluation(self) -> Path:
        """Held-out result, JSON."""
        return self.path / "evaluation.json"

    @property
    def policy(self) -> Path:
        """The exported policy."""
        return self.path / "policy.onnx"

    def append(self, path: Path, entry: dict[str, Any]) -> None:
        """Append one JSON line, and wait until the disk has it: a checkpoint may follow.

        Raises:
            TrainingError: the disk refuses.
        """
        try:
            with path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise _refused(path, problem) from problem

    def cut_back(self, iteration: int) -> None:
        """Drop lines of metrics, timing and decisions beyond an iteration, for a resume."""
        for path in (self.metrics, self.timing, self.decisions):
            if not path.exists():
                continue
            entries = read_json_lines(path)
            kept = [json.dumps(e) + "\n" for e in entries if e.get("iteration", 0) <= iteration]
            write_atomically(path, "".join(kept).encode())

    def write_json(self, name: str, data: Any) -> Path:
        """Write a JSON file of the run atomically; return its path.

        Raises:
            TrainingError: the disk refuses.
        """
        path = self.path / name
        try:
            write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())
        except OSError as problem:
            raise _refused(path, problem) from problem
        return path

    def read_json(self, name: str) -> Any:
        """Return a JSON file of the run, or None where it is absent or damaged."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return None

    def hold(self) -> None:
        """Mark the run as held by this process, until it releases it or ends.

        Raises:
            TrainingError: another process holds it.
        """
        if not run_lock.take(self.path):
            pid = (self.read_json("status.json") or {}).get("pid", "unknown")
            raise TrainingError(
                f"run {self.path} is held by process {pid}",
                remedy="stop that process, or start a new run with resume:=never",
            )
        self.set_state("running")

    def release(self) -> None:
        """Let others hold the run; idempotent."""
        run_lock.give_up(self.path)

    @property
    def is_held_elsewhere(self) -> bool:
        """Whether another process holds the run now."""
        return run_lock.is_taken_elsewhere(self.path)

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Mark the run as failed where what is done within raises."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(TrainingError):  # of a disk that refuses this too
                self.set_state("failed", error=f"{type(error).__name__}: {error}")
            raise

    def set_state(self, state: str, **entries: Any) -> None:
        """Write who holds the run and what it is doing."""
        self.write_json(
            "status.json",
            {
                **(self.read_json("status.json") or {}),
                "state": state,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                **entries,
            },
        )


class UnwrittenRun(RunDirectory):
    """A run's folder for the ranks that write nothing into it: the first does."""

    def append(self, path: Path, entry: dict[str, Any]) -> None:
        """Do nothing."""

    def write_json(self, name: str, data: Any) -> Path:
        """Return the path of a file that the first rank writes."""
        return self.path / name

    def hold(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""


def create_run(output: Path, task: str, algorithm: str, seed: int) -> RunDirectory:
    """Make a new run folder."""
    parent = output / re.sub(r"[^\w.-]+", "_", task) / algorithm
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = parent / f"{stamp}_{seed}{suffix}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return RunDirectory(path)
    raise TrainingError(f"no free run folder in {parent}")


def point_latest(output: Path, run: Path) -> None:
    """Make `<output>/latest` a link to a run that lies below; one elsewhere gets none."""
    if not run.resolve().is_relative_to(output.resolve()):
        return
    temporary = output / f".latest.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.resolve().relative_to(output.resolve()), target_is_directory=True)
    temporary.replace(output / "latest")


def find_resumable(
    output: Path, task: str, algorithm: str, config_hash: str
) -> tuple[RunDirectory | None, list[str]]:
    """Return the newest unfinished run of the same configuration, and why others were skipped."""
    parent = output / re.sub(r"[^\w.-]+", "_", task) / algorithm
    skipped: list[str] = []
    if not parent.is_dir():
        return None, skipped
    for path in sorted((p for p in parent.iterdir() if p.is_dir()), reverse=True):
        run = RunDirectory(path)
        status = run.read_json("status.json") or {}
        if status.get("state") == FINISHED:
            continue
        if status.get("config_hash") != config_hash:
            skipped.append(f"{path.name}: another configuration")
        elif not has_checkpoint(run.checkpoints):
            skipped.append(f"{path.name}: no checkpoint")
        elif run.is_held_elsewhere:
            skipped.append(f"{path.name}: held by process {status.get('pid')}")
        else:
            return run, skipped
    return None, skipped


def _refused(path: Path, problem: OSError) -> TrainingError:
    return TrainingError(
        f"{path} not written: {problem.strerror}",
        remedy="free some space, then give the same command; the previous checkpoint is intact",
    )
