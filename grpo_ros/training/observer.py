"""What may be told about a run while it goes on: progress, metrics, the first environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grpo_ros.algorithms.histograms import Histogram
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.group_paths import GroupPaths


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        phase: demonstrations | cloning | evaluation | training | finishing.
        done, total: in the phase's own unit (control steps while training).
        success: latest success rate on the curve's initial states; None before the first.
        wilson_95: its interval.
        remaining_s: estimated time left of the phase; None while unknown.
        steps_per_s: control steps per second of the last iteration.
    """

    phase: str
    done: int
    total: int
    success: float | None = None
    wilson_95: tuple[float, float] | None = None
    remaining_s: float | None = None
    steps_per_s: float | None = None


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run ended, and what it wrote.

    Attributes:
        state: finished | stopped.
        run: the run's folder.
        files: what was written, by kind (checkpoint, policy, evaluation, report).
        evaluation: successes, episodes, wilson_95 and more, as in evaluation.json.
    """

    state: str
    run: str
    files: Mapping[str, str]
    evaluation: Mapping[str, Any]


class TrainingObserver:
    """Does nothing; observers override what they want to know. Called in the trainer's thread."""

    @property
    def wants_paths(self) -> bool:
        """Whether `on_groups` is wanted of the rollout that begins now; it costs a little."""
        return False

    def on_step(self, scene: Callable[[], SceneState], period_s: float) -> None:
        """Know of each control period of the first environment; `scene` makes its scene (one row).

        It costs a little, and holds within the call.
        """

    def on_iteration(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Take the metrics of one iteration."""

    def on_histograms(self, histograms: Mapping[str, Histogram]) -> None:
        """Take the histograms of one iteration by their metrics' names, before its metrics."""

    def on_groups(self, paths: GroupPaths) -> None:
        """Take where the members of some groups of one iteration went."""

    def on_alarm(self, reason: str) -> None:
        """Take that something is wrong with the training, and why; empty: no longer."""
        if reason:
            self.on_message(f"ALARM: {reason}")

    def on_progress(self, progress: Progress) -> None:
        """Take progress inside a phase."""

    def on_recorded(self, done: int, total: int) -> None:
        """Pass on how many demonstrations are recorded, of how many."""
        self.on_progress(Progress("demonstrations", done, total))

    def on_message(self, text: str) -> None:
        """Take one line for the user."""


class Observers(TrainingObserver):
    """Passes everything on to several observers."""

    def __init__(self, observers: Sequence[TrainingObserver]) -> None:
        self.observers = tuple(observers)

    @property
    def wants_paths(self) -> bool:
        """Whether any of them wants paths."""
        return any(observer.wants_paths for observer in self.observers)

    def on_step(self, scene: Callable[[], SceneState], period_s: float) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_step(scene, period_s)

    def on_iteration(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_iteration(metrics, progress)

    def on_histograms(self, histograms: Mapping[str, Histogram]) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_histograms(histograms)

    def on_progress(self, progress: Progress) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_progress(progress)

    def on_groups(self, paths: GroupPaths) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_groups(paths)

    def on_alarm(self, reason: str) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_alarm(reason)

    def on_message(self, text: str) -> None:
        """Pass on."""
        for observer in self.observers:
            observer.on_message(text)
