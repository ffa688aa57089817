"""What was done on a robot, run by run, and how each outcome came to be known."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from grpo_ros.contract import Contract
from grpo_ros.deployment.records.trials import write_report
from grpo_ros.training.statistics import wilson_interval

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
    """The runs of one policy server, written beside the policy when it goes down.

    Args:
        policy: the file. contract: its contract. settings: what to write down of how it ran.
    """

    def __init__(self, policy: Path, contract: Contract, settings: Mapping[str, Any]) -> None:
        self.policy, self.contract, self.settings = policy, contract, settings
        self.runs: list[Run] = []

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
        return True

    def counts(self) -> tuple[int, int]:
        """Return how many runs succeeded, of how many whose outcome is known."""
        known = [run.success for run in self.runs if run.success is not None]
        return sum(known), len(known)

    def write(self) -> Path | None:
        """Write deployments/<date>.json beside the policy; None where there was no run."""
        if not self.runs:
            return None
        successes, episodes = self.counts()
        report = {
            "successes": successes,
            "episodes": episodes,
            "wilson_95": list(wilson_interval(successes, episodes)) if episodes else [0.0, 1.0],
            "task": self.contract.task,
            "robot": self.contract.embodiment,
            "policy": self.policy.name,
            "policy_sha256": hashlib.sha256(self.policy.read_bytes()).hexdigest(),
            **self.settings,
            "runs": [dataclasses.asdict(run) for run in self.runs],
        }
        return write_report(self.policy.parent, report)
