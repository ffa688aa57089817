"""RunRecord: what a run writes and tells about each iteration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from grpo_ros.algorithms.histograms import Histogram
from grpo_ros.files import read_json_lines
from grpo_ros.training.collapse import CollapseAlarm
from grpo_ros.training.evaluation import Evaluation
from grpo_ros.training.observer import Progress, TrainingObserver
from grpo_ros.training.run_directory import RunDirectory


class RunRecord:
    """Appends metrics and times of iterations, and passes them on.

    Args:
        run: whose files are written.
        observer: told about each iteration.
        total: control steps of the whole training.
        is_written: whether there is anything to write; the other ranks of a run only count time.

    Attributes:
        latest: the last evaluation on the curve's states, for whoever watches.
        elapsed_s: wall-clock seconds spent on learning so far.
    """

    def __init__(
        self, run: RunDirectory, observer: TrainingObserver, total: int, is_written: bool = True
    ) -> None:
        self._run, self._observer, self._total = run, observer, total
        self.latest: Evaluation | None = None
        self.elapsed_s = 0.0
        self._collapse, self._alarm = CollapseAlarm(), ""
        self._is_written = is_written
        self._tensorboard: SummaryWriter | None = None

    def resume(self) -> None:
        """Go on from where the run's files end: with the time, and with what alarms rest on."""
        for metrics in read_json_lines(self._run.metrics):
            self._collapse.observe(metrics)
        try:
            last = self._run.timing.read_text().splitlines()[-1]
            self.elapsed_s = float(json.loads(last)["elapsed_s"])
        except (OSError, IndexError, ValueError, KeyError):
            self.elapsed_s = 0.0

    def iteration(
        self,
        metrics: dict[str, Any],
        timing: dict[str, Any],
        histograms: Mapping[str, Histogram] | None = None,
    ) -> None:
        """Write one iteration and tell about it.

        Args:
            metrics: what is reproducible: `iteration`, `env_steps` and any others.
            histograms: of rewards and advantages, by name.
            timing: what is not: `collect_s`, `update_s`, `cpu_s` (of both) and any others.
        """
        if not self._is_written:
            return
        run, iteration, env_steps = self._run, metrics["iteration"], metrics["env_steps"]
        alarm = self._collapse.observe(metrics)
        if "diversity" in metrics:
            metrics = {**metrics, "collapse_alarm": float(bool(alarm))}
        known = histograms or {}
        counts = {name: list(each.counts) for name, each in known.items()}
        run.append(run.metrics, {**metrics, **counts})
        run.append(run.timing, {"iteration": iteration, **timing, "elapsed_s": self.elapsed_s})
        tensorboard = self._opened(env_steps)
        for name, value in metrics.items():
            tensorboard.add_scalar(name, value, env_steps)
        for name, each in known.items():
            add_histogram(tensorboard, name, each, env_steps)
        iteration_s = timing["collect_s"] + timing["update_s"]
        self._observer.on_histograms(known)
        self._observer.on_iteration(metrics, self._progress(metrics, iteration_s))
        if alarm != self._alarm:
            self._alarm = alarm
            self._observer.on_alarm(alarm)

    def decision(self, iteration: int, text: str) -> None:
        """Write and tell what the algorithm decided, and why."""
        self._run.append(self._run.decisions, {"iteration": iteration, "decision": text})
        self._observer.on_message(text)

    def close(self) -> None:
        """Flush; idempotent."""
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _opened(self, env_steps: int) -> SummaryWriter:
        """Return the writer; where it is new, what earlier ones wrote from here on is void."""
        if self._tensorboard is None:
            folder = str(self._run.path / "tensorboard")
            self._tensorboard = SummaryWriter(folder, purge_step=env_steps)
        return self._tensorboard

    def _progress(self, metrics: dict[str, Any], iteration_s: float) -> Progress:
        env_steps, total = metrics["env_steps"], self._total
        remaining = None
        if env_steps:
            remaining = self.elapsed_s / env_steps * max(0, total - env_steps)
        steps = metrics.get("rollout_env_steps")
        return Progress(
            "training",
            min(env_steps, total),
            total,
            self.latest.success_rate if self.latest else None,
            self.latest.wilson_95 if self.latest else None,
            remaining,
            steps / iteration_s if steps and iteration_s > 0 else None,
        )


def add_histogram(writer: SummaryWriter, name: str, histogram: Histogram, step: int) -> None:
    """Write a histogram with its own bins; its sums are those of the bins' middles."""
    edges, counts = histogram.edges, histogram.counts
    limits = [*edges[1:], edges[-1]][: len(counts)]
    lower = [*edges[:-1], edges[-1]][: len(counts)]
    middles = [0.5 * (a + b) for a, b in zip(lower, limits, strict=True)]
    pairs = list(zip(middles, counts, strict=True))
    writer.add_histogram_raw(
        name,
        min=edges[0],
        max=edges[-1],
        num=sum(counts),
        sum=sum(middle * count for middle, count in pairs),
        sum_squares=sum(middle * middle * count for middle, count in pairs),
        bucket_limits=limits,
        bucket_counts=counts,
        global_step=step,
    )
