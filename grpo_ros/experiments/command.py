"""The command `grpo-ros protocol`: run a study, go on with it, write its report."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grpo_ros.errors import ConfigurationError

QUICK, FULL = "quick", "full"
INCOMPLETE, INTERRUPTED = 1, 130


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add what the command takes, beside settings."""
    command.add_argument(
        "--study",
        default="",
        metavar="NAME",
        help="full, quick, gr00t, or a YAML file (full)",
    )
    command.add_argument(
        "--quick", action="store_true", help="15 minutes on 2 cores, and little to conclude"
    )
    command.add_argument(
        "--phases",
        default="",
        metavar="N,N",
        help="1: PPO; 2: GRPO; 3: hybrids, exact states (all)",
    )
    command.add_argument("--tasks", default="", metavar="NAME,NAME", help="of the study (all)")
    command.add_argument("--seeds", type=int, metavar="N", help="of each arm (as the study says)")
    command.add_argument(
        "--workers", type=int, metavar="N", help="runs at a time, one a core (all cores)"
    )
    command.add_argument(
        "--output", default="", metavar="DIR", help="of runs and report (studies/NAME)"
    )
    command.add_argument(
        "--report-only", action="store_true", help="of the runs that are finished; runs nothing"
    )


def protocol(options: argparse.Namespace) -> int:
    """Compare algorithms on equal terms; resumes where it was stopped or killed.

    The last line names the report. Exit codes: 0 all runs are done; 1 some are not; 130
    interrupted.
    """
    from grpo_ros.experiments.report import write_report
    from grpo_ros.experiments.results import collect
    from grpo_ros.experiments.run_queue import RunQueue, free_cores
    from grpo_ros.experiments.study import load_study
    from grpo_ros.interrupts import Interrupts

    name = options.study or (QUICK if options.quick else FULL)
    study = load_study(name).narrowed(_words(options.tasks), options.seeds, options.settings)
    study = study.checked()
    cells = study.cells(_numbers("phases", options.phases))
    if not cells:
        raise ConfigurationError(f"no run in phases {options.phases} of study '{name}'")
    output = Path(options.output or f"studies/{Path(name).stem}")
    is_complete, interrupts = True, Interrupts()
    if not options.report_only:
        queue = RunQueue(cells, output, free_cores(options.workers), _say)
        interrupts.attach(queue.stop, can_keep=lambda: True)
        is_complete = queue.run()
    results = collect(study, cells, output, _command(name, options))
    output.mkdir(parents=True, exist_ok=True)
    written = [results.write(output / "results.json")]
    if results.runs:
        written += write_report(results, output, memory_rows(study, _say))
    _say(f"{len(results.runs)} of {len(cells)} runs; wrote {' '.join(map(str, written))}")
    if interrupts.has_come:
        return INTERRUPTED
    return 0 if is_complete and not results.missing else INCOMPLETE


def memory_rows(study: Any, say: Callable[[str], None]) -> list[list[str]]:
    """Return what training takes on each task with a critic and without one, as a table."""
    from grpo_ros.configuration import load_config
    from grpo_ros.errors import GrpoRosError
    from grpo_ros.training.memory import estimate_memory

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
        rows.append(
            [name, config.policy, f"{whole / 1e6:.1f} MB", f"{without / 1e6:.1f} MB", share]
        )
    return rows


def _command(name: str, options: argparse.Namespace) -> str:
    parts = ["grpo-ros", "protocol", "--study", name]
    for option in ("phases", "tasks", "seeds"):
        if (value := getattr(options, option)) not in ("", None):
            parts += [f"--{option}", str(value)]
    return shlex.join([*parts, *options.settings])


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(name: str, text: str) -> Sequence[int]:
    try:
        return [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigurationError(f"'{name}' = '{text}'", expected="numbers, as in 1,2") from None


def _say(text: str) -> None:
    print(text, flush=True)
