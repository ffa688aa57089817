"""Progress of a training run for whoever sits at the terminal, or reads a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from grpo_ros.report.summary import duration, progress_line
from grpo_ros.training.observer import Progress, TrainingObserver

LINE_S = 10.0


class ProgressLines(TrainingObserver):
    """Writes a line now and then, for output that is not a terminal."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._last_s = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._out.flush()

    def on_iteration(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Write the progress, at most every LINE_S seconds."""
        self._write(f"iteration {int(metrics['iteration'])}: {progress_line(progress)}")

    def on_progress(self, progress: Progress) -> None:
        """Write the progress, at most every LINE_S seconds."""
        self._write(progress_line(progress))

    def on_message(self, text: str) -> None:
        """Write a line."""
        print(text, file=self._out, flush=True)

    def _write(self, line: str) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= LINE_S:
            self._last_s = now_s
            print(line, file=self._out, flush=True)


class ProgressBar(TrainingObserver):
    """Shows phase, share, success with its interval, speed and time left on a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.fields[detail]}"),
        )
        self._task = self._bar.add_task("starting", total=None, detail="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def on_iteration(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Move the bar."""
        self.on_progress(progress)

    def on_progress(self, progress: Progress) -> None:
        """Move the bar."""
        detail = []
        if progress.success is not None:
            detail.append(f"success [bold]{progress.success:.2f}[/bold]")
        if progress.wilson_95 is not None:
            # Rich takes what stands in brackets for markup.
            detail.append("({:.2f} to {:.2f})".format(*progress.wilson_95))
        if progress.steps_per_s is not None:
            detail.append(f"{progress.steps_per_s:,.0f} steps/s")
        if progress.remaining_s is not None:
            detail.append(f"{duration(progress.remaining_s)} left")
        self._bar.update(
            self._task,
            description=progress.phase,
            completed=progress.done,
            total=progress.total,
            detail=" ".join(detail),
        )

    def on_message(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def terminal_progress() -> ProgressBar | ProgressLines:
    """Return a bar on a terminal, else lines."""
    return ProgressBar() if sys.stdout.isatty() else ProgressLines()
