"""The protocol: runs a study, goes on with it, writes its report."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from grpo_ros.configuration import load_config
from grpo_ros.errors import ConfigurationError, GrpoRosError
from grpo_ros.experiments.report import write_report
from grpo_ros.experiments.results import FILE, collect
from grpo_ros.experiments.run_queue import RunQueue, free_cores
from grpo_ros.experiments.study import Cell, Study, load_study
from grpo_ros.experiments.tables import Table
from grpo_ros.interrupts import Interrupts
from grpo_ros.training.memory import estimate_memory

INCOMPLETE, INTERRUPTED = 1, 130


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which runs of a study are wanted.

    Attributes:
        study: a preset's name, or a YAML file.
        phases, tasks: separated by commas; empty: all.
        seeds: of each arm; None: as the study says.
        settings: key=value, of all runs.
    """

    study: str
    phases: str = ""
    tasks: str = ""
    seeds: int | None = None
    settings: tuple[str, ...] = ()

    def narrowed(self) -> tuple[Study, list[Cell]]:
        """Return the study as far as it is wanted, and its runs.

        Raises:
            ConfigurationError: a mistake in the study or in what is wanted of it.
        """
        study = load_study(self.study)
        study = study.narrowed(_words(self.tasks), self.seeds, self.settings).checked()
        cells = study.cells(self._phases())
        if not cells:
            raise ConfigurationError(
                f"no run of study '{self.study}' is in phases {self.phases}",
                expected=f"some of {sorted({arm.phase for arm in study.arms.values()})}",
            )
        return study, cells

    def command(self) -> str:
        """Return what reproduces it."""
        parts = ["grpo-ros", "protocol", "--study", self.study]
        for name in ("phases", "tasks", "seeds"):
            if (value := getattr(self, name)) not in ("", None):
                parts += [f"--{name}", str(value)]
        return shlex.join([*parts, *self.settings])

    def _phases(self) -> list[int]:
        try:
            return [int(word) for word in _words(self.phases)]
        except ValueError:
            raise ConfigurationError(
                f"'phases' = '{self.phases}'", expected="numbers, as in 1,2"
            ) from None


def run_protocol(asked: Asked, folder: str, workers: int | None, *, is_run: bool) -> int:
    """Run what is not finished, write results and report; return the exit code.

    Args:
        asked: which runs.
        folder: of runs and report; empty: studies/<study>.
        workers: runs at a time; None: as many as there are cores.
        is_run: whether anything is run; otherwise finished runs are reported.
    """
    study, cells = asked.narrowed()
    output = Path(folder or f"studies/{Path(asked.study).stem}")
    is_complete, interrupts = True, Interrupts()
    if is_run:
        collect(study, cells, output, asked.command())  # what is there can be gone on with
        queue = RunQueue(cells, output, free_cores(workers), say)
        interrupts.attach(queue.stop, can_keep=lambda: True)
        is_complete = queue.run()
    results = collect(study, cells, output, asked.command())
    output.mkdir(parents=True, exist_ok=True)
    written = [results.write(output / FILE)]
    if results.runs:
        written += write_report(results, output, memory_rows(study))
    num_done = len(cells) - len(results.missing)
    say(f"{num_done} of {len(cells)} runs; wrote {' '.join(map(str, written))}")
    if interrupts.has_come:
        return INTERRUPTED
    return 0 if is_complete and not results.missing else INCOMPLETE


def memory_rows(study: Study) -> Table:
    """Return what training takes on each task with a critic and without one."""
    rows = [["task", "policy", "with a critic", "without", "the critic adds"]]
    for name, scenario in study.scenarios.items():
        chosen = [f"task={scenario.task}", "algorithm=ppo", *study.settings, *scenario.settings]
        if scenario.difficulty:
            chosen.append(f"difficulty={scenario.difficulty}")
        try:
            config = load_config(chosen)
            found = estimate_memory(config)
        except GrpoRosError as problem:
            say(f"no memory estimate of {name}: {problem}")
            continue
        whole, without = found.total(), found.total(with_critic=False)
        share = f"{whole - without:,} bytes, {found.critic_share:.1%}"
        sizes = [f"{size / 1e6:.1f} MB" for size in (whole, without)]
        rows.append([name, config.policy, *sizes, share])
    return rows


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def _words(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
