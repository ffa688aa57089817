"""What was done on a robot, run by run, and how each outcome came to be known."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from grpo_ros.contract import Contract
from grpo_ros.deployment.records.trials import FOLDER, report_path, write_json
from grpo_ros.training.statistics import wilson_interval

CLOSE_S = 3.0
"""Longest wait for the disk as a server goes down."""
OutcomeSource = Literal["predicate", "operator", "none"]


@dataclasses.dataclass
class Run:
    """One run, from ~/start to its end.

    Attributes:
        began: wall-clock time, ISO 8601.
        reason: why it ended.
        periods: control periods in which the policy commanded.
        interventions, held: of the gate and the runner, by kind.
        success: None where nobody said. outcome_from: who did.
    """

    began: str
    reason: str = "running"
    periods: int = 0
    interventions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    held: Mapping[str, int] = dataclasses.field(default_factory=dict)
    success: bool | None = None
    outcome_from: OutcomeSource = "none"


class RunRecord:
    """The runs of one policy server, kept beside the policy by a `RecordWriter`.

    Args:
        policy: the file, whose hash is taken now: another one may take its place.
        contract: its contract. settings: what to write down of how it ran.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, policy: Path, contract: Contract, settings: Mapping[str, Any]) -> None:
        self.policy, self.contract, self.settings = policy, contract, settings
        self.policy_sha256 = hashlib.sha256(policy.read_bytes()).hexdigest()
        self.runs: list[Run] = []
        self.on_change: Callable[[], object] = lambda: None
        """Called when a run has ended, and when one is marked."""

    def begin(self) -> None:
        """Begin a run."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.runs.append(Run(now))

    def end(
        self, reason: str, periods: int, interventions: Mapping[str, int], held: Mapping[str, int]
    ) -> None:
        """Say how the present run ended; later calls for the same run change nothing."""
        if self.runs and self.runs[-1].reason == "running":
            run = self.runs[-1]
            run.reason, run.periods = reason, periods
            run.interventions, run.held = dict(interventions), dict(held)
            self.on_change()

    def mark(self, success: bool, source: OutcomeSource) -> bool:
        """Say how the last run came out; an operator's word stands above the predicate's.

        Returns:
            Whether there is a run to mark.
        """
        if not self.runs:
            return False
        run = self.runs[-1]
        if not (source == "predicate" and run.outcome_from == "operator"):
            run.success, run.outcome_from = success, source
            self.on_change()
        return True

    def counts(self) -> tuple[int, int]:
        """Return how many runs succeeded, of how many whose outcome is known."""
        known = [run.success for run in self.runs if run.success is not None]
        return sum(known), len(known)

    def report(self) -> dict[str, Any]:
        """Return all that is known by now, JSON-ready."""
        successes, episodes = self.counts()
        return {
            "successes": successes,
            "episodes": episodes,
            "wilson_95": list(wilson_interval(successes, episodes)) if episodes else [0.0, 1.0],
            "task": self.contract.task,
            "robot": self.contract.embodiment,
            "policy": self.policy.name,
            "policy_sha256": self.policy_sha256,
            **self.settings,
            "runs": [dataclasses.asdict(run) for run in self.runs],
        }


class RecordWriter:
    """Writes a record down as deployments/<date>.json whenever it changes, run by run one file.

    In a thread of its own: while a disk takes its time, the robot still brakes. What cannot be
    written stays in memory and is tried again with the next change.

    Args:
        record: of the runs.
        complain: told what could not be written, and what to do about it.
    """

    def __init__(self, record: RunRecord, complain: Callable[[str], None]) -> None:
        self.record, self._complain = record, complain
        self._path: Path | None = None
        self._thread = ThreadPoolExecutor(1, "run_record")
        record.on_change = self.write

    def write(self) -> Future[Path | None]:
        """Write what is known by now; the answer is the file, None where it was not written."""
        return self._thread.submit(self._write, self.record.report())

    def close(self) -> Path | None:
        """Write for the last time; return the file, None without a run or where that failed."""
        written = self.write() if self.record.runs else None
        self.record.on_change = lambda: None
        self._thread.shutdown(wait=False)
        try:
            return None if written is None else written.result(CLOSE_S)
        except TimeoutError:
            self._complain(self._problem(f"the disk has not answered for {CLOSE_S:g} s"))
            return None

    def _write(self, report: Mapping[str, Any]) -> Path | None:
        try:
            path = self._path or report_path(self.record.policy.parent)
            write_json(path, report)
        except OSError as problem:
            self._complain(self._problem(str(problem)))
            return None
        self._path = path
        return path

    def _problem(self, why: str) -> str:
        folder = self.record.policy.parent / FOLDER
        return (
            f"the record of {len(self.record.runs)} runs cannot be written to {folder}: {why}; "
            "make room or let this user write there: it is tried again after each run and mark, "
            "and once more in cleanup"
        )
