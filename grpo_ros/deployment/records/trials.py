"""Trials: what a series of deployed episodes gave, and the file that says so."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grpo_ros.errors import GrpoRosError
from grpo_ros.files import write_atomically
from grpo_ros.training.evaluation import Evaluation
from grpo_ros.training.statistics import paired_difference, wilson_interval

FOLDER = "deployments"


class TrialError(GrpoRosError):
    """A trial could not be carried out to its end."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One deployed episode.

    Attributes:
        episode: its number. key: of its held-out initial state.
        success: the outcome was verified. score: in [0, 1].
        steps: control periods. terminated: the task ended it, not the time limit.
        error: why it does not count; empty if it does.
        periods: control periods in which the policy sent a command.
        interventions: of the safety gate, by kind.
        held: periods in which the policy server held, by reason.
    """

    episode: int
    key: tuple[int, ...]
    success: bool
    score: float
    steps: int
    terminated: bool
    error: str = ""
    periods: int = 0
    interventions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    held: Mapping[str, int] = dataclasses.field(default_factory=dict)


def summary(trials: Sequence[Trial], requested: int) -> dict[str, Any]:
    """Return successes, episodes and their Wilson interval over the trials that count."""
    counted = [trial for trial in trials if not trial.error]
    successes = sum(trial.success for trial in counted)
    return {
        "successes": successes,
        "episodes": len(counted),
        "wilson_95": list(wilson_interval(successes, len(counted))),
        "requested": requested,
        "is_complete": len(counted) == requested,
        "env_steps": sum(trial.steps for trial in counted),
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }


def compared(trials: Sequence[Trial], expected: Evaluation) -> dict[str, Any]:
    """Return the same episodes' outcomes without ROS beside the deployed ones.

    Args:
        trials: all that were asked for, in the order of `expected`.
        expected: in-process outcomes of the same initial states and the same policy file.
    """
    pairs = [
        (trial, bool(outcome), float(score), int(steps))
        for trial, outcome, score, steps in zip(
            trials, expected.outcome, expected.score, expected.num_steps, strict=True
        )
        if not trial.error
    ]
    deployed = np.array([trial.success for trial, *_ in pairs], dtype=float)
    in_process = np.array([outcome for _, outcome, *_ in pairs], dtype=float)
    mean, low, high = paired_difference(deployed, in_process) if pairs else (0.0, -1.0, 1.0)
    identical = [
        trial.success == outcome and trial.score == score and trial.steps == steps
        for trial, outcome, score, steps in pairs
    ]
    return {
        **expected.to_json(),
        "outcomes": [bool(outcome) for outcome in expected.outcome],
        "steps": [int(steps) for steps in expected.num_steps],
        "equal_outcomes": sum(trial.success == outcome for trial, outcome, *_ in pairs),
        "identical_episodes": sum(identical),
        "difference": mean,
        "difference_95": [low, high],
    }


def write_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write a report as deployments/<date>.json under `folder`, at once or not at all."""
    path = report_path(folder)
    write_json(path, report)
    return path


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report to a file, at once or not at all."""
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())


def report_path(folder: Path) -> Path:
    """Return deployments/<date>.json under `folder`, which is not there yet."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    path = target / f"{stamp}.json"
    number = 2
    while path.exists():
        path = target / f"{stamp}-{number}.json"
        number += 1
    return path
