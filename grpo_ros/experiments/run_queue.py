"""RunQueue: the runs of a study, as many at a time as there are cores, in processes of their own.

All state is in the runs' folders: a queue that was killed and is started again goes on with each
run from its newest checkpoint.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from grpo_ros.errors import ExperimentError
from grpo_ros.experiments.results import FILE, Recorded
from grpo_ros.experiments.run_of_cell import env_steps_done, finished_run, folder_of
from grpo_ros.experiments.study import Cell
from grpo_ros.report.summary import duration

POLL_S, SAY_S = 0.5, 30.0
STOP_S = 240.0
"""Longest that a run takes to end after it was asked to: an iteration, or a final evaluation."""
MAXIMUM_TRIES = 2
OVERHEAD_STEPS = 150_000
"""What imports, cloning and evaluations of a run cost, as environment steps; until it is known."""
Say = Callable[[str], None]


@dataclasses.dataclass
class _Worker:
    """A run under way."""

    cell: Cell
    process: subprocess.Popen[bytes]
    core: int
    began_s: float
    done_before: int


class RunQueue:
    """Runs cells until all are finished.

    Args:
        cells: in order.
        output: the study's folder.
        cores: a run at a time on each of them.
        say: told about each run that ends, and now and then how far all are.

    Raises:
        ExperimentError: the study's results.json is damaged or of another schema.
        DemonstrationError: there are no demonstrations where a cell says.
    """

    def __init__(
        self, cells: Sequence[Cell], output: Path, cores: Sequence[int], say: Say
    ) -> None:
        self.output, self.cores, self.say = output, tuple(cores), say
        self.failed: list[Cell] = []
        recorded = Recorded(output / FILE)
        self._waiting = [
            cell
            for cell in cells
            if recorded.of(cell) is None and finished_run(cell, output, say) is None
        ]
        self._budgets = {cell.name: cell.config().collection.env_steps for cell in cells}
        self._num, self._num_done = len(cells), len(cells) - len(self._waiting)
        self._tries: dict[str, int] = {}
        self._workers: list[_Worker] = []
        self._speeds: dict[tuple[str, str], list[float]] = {}
        self._is_stopping = False
        self._said_s = 0.0

    def stop(self) -> None:
        """Start no more runs, and have those under way save and end."""
        self._is_stopping = True

    def run(self) -> bool:
        """Run all cells; return whether all are finished.

        Runs end with this process, however it ends: they save, and are gone on with.
        """
        self.say(self.progress())
        try:
            while not self._is_stopping and (self._waiting or self._workers):
                self._start_some()
                time.sleep(POLL_S)
                for worker in [w for w in self._workers if w.process.poll() is not None]:
                    self._workers.remove(worker)
                    self._ended(worker)
                if time.monotonic() - self._said_s >= SAY_S:
                    self.say(self.progress())
        finally:
            self._end_all()
        return not self._waiting and not self.failed

    def progress(self) -> str:
        """Return how many runs are done, which are under way, and the time left."""
        self._said_s = time.monotonic()
        parts = [f"{self._num_done} of {self._num} runs done"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        for worker in self._workers:
            share = self._share(worker.cell, env_steps_done(worker.cell, self.output))
            parts.append(f"{worker.cell.name} {share:.0%}")
        left = self.remaining_s()
        return ", ".join([*parts, f"{duration(left)} left"] if left is not None else parts)

    def remaining_s(self) -> float | None:
        """Return the time that is left, from how long others took; None before the first ended."""
        if not self._speeds:
            return None
        left = 0.0
        for worker in self._workers:
            whole = self._cost(worker.cell)
            left += max(0.1 * whole, whole - (time.monotonic() - worker.began_s))
        left += sum(self._cost(cell) for cell in self._waiting)
        return left / len(self.cores)

    def _cost(self, cell: Cell) -> float:
        """Return the seconds that a run takes: of its own kind, of its task, of any."""
        steps = self._budgets[cell.name] + OVERHEAD_STEPS
        exact = self._speeds.get((cell.scenario, cell.arm))
        same = [v for (s, _), found in self._speeds.items() if s == cell.scenario for v in found]
        every = [v for found in self._speeds.values() for v in found]
        known = exact or same or every
        return steps * sum(known) / len(known)

    def _share(self, cell: Cell, done: int) -> float:
        return min(1.0, done / max(1, self._budgets[cell.name]))

    def _start_some(self) -> None:
        free = [core for core in self.cores if all(w.core != core for w in self._workers)]
        while free and self._waiting and not self._is_stopping:
            self._workers.append(self._started(self._waiting.pop(0), free.pop(0)))

    def _started(self, cell: Cell, core: int) -> _Worker:
        folder = folder_of(cell, self.output)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "grpo_ros", "train", *cell.settings()]
        command += ["resume=auto", "mujoco.num_threads=1", f"output={folder}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._tries[cell.name] = self._tries.get(cell.name, 0) + 1
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C comes once, from here
                preexec_fn=_end_with_parent(core, os.getpid()),
            )
        done = env_steps_done(cell, self.output)
        return _Worker(cell, process, core, time.monotonic(), done)

    def _ended(self, worker: _Worker) -> None:
        cell, took_s = worker.cell, time.monotonic() - worker.began_s
        if finished_run(cell, self.output, self.say) is not None:
            self._num_done += 1
            steps = max(1, self._budgets[cell.name] - worker.done_before) + OVERHEAD_STEPS
            self._speeds.setdefault((cell.scenario, cell.arm), []).append(took_s / steps)
            self.say(f"{cell.name} finished in {duration(took_s)}; {self.progress()}")
            return
        code = worker.process.returncode
        if self._is_stopping:
            self._waiting.insert(0, cell)
            return
        log = folder_of(cell, self.output) / "log"
        if self._tries[cell.name] < MAXIMUM_TRIES:
            self._waiting.append(cell)
            self.say(f"{cell.name} ended with code {code}, to be tried again (see {log})")
        else:
            self.failed.append(cell)
            self.say(f"{cell.name} failed with code {code} (see {log})")

    def _end_all(self) -> None:
        """Ask the runs under way to save and end, and wait; kill what does not."""
        self.stop()
        for worker in self._workers:
            _signal(worker.process, signal.SIGINT)
        deadline = time.monotonic() + STOP_S
        while self._workers:
            worker = self._workers.pop()
            try:
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(worker.process, signal.SIGKILL)
                worker.process.wait()
            self._ended(worker)


def free_cores(wanted: int | None) -> list[int]:
    """Return the cores that runs may use, one run on each.

    Raises:
        ExperimentError: more are wanted than there are.
    """
    cores = sorted(os.sched_getaffinity(0))
    if wanted is None:
        return cores
    if not 1 <= wanted <= len(cores):
        raise ExperimentError(
            f"{wanted} runs at a time", expected=f"1 to {len(cores)}, one a core"
        )
    return cores[:wanted]


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _end_with_parent(core: int, parent: int) -> Callable[[], None]:
    """Return what a run does first: keep to its core, and be asked to end if we die."""
    set_death_signal = ctypes.CDLL(None, use_errno=True).prctl
    pr_set_pdeathsig = 1

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        set_death_signal(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != parent:  # it died before that
            os._exit(1)

    return prepare
