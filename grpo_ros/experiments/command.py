"""The commands `grpo-ros protocol` and `grpo-ros advise`: what they take."""

from __future__ import annotations

import argparse

QUICK, FULL = "quick", "full"


def add_protocol_arguments(command: argparse.ArgumentParser) -> None:
    """Add what `protocol` takes, beside settings."""
    command.add_argument(
        "--study", default="", metavar="NAME", help="full, quick, gr00t, or a YAML file (full)"
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
    command.add_argument("--workers", type=int, metavar="N", help="runs at a time (all cores)")
    command.add_argument("--output", default="", metavar="DIR", help="(studies/NAME)")
    command.add_argument(
        "--report-only", action="store_true", help="of the runs that are finished; runs nothing"
    )


def protocol(options: argparse.Namespace) -> int:
    """Compare algorithms on equal terms; goes on where it was stopped or killed.

    The last line names the report. Exit codes: 0 all runs are done; 1 some are not; 130
    interrupted.
    """
    from grpo_ros.experiments.protocol import Asked, run_protocol

    asked = Asked(
        options.study or (QUICK if options.quick else FULL),
        options.phases,
        options.tasks,
        options.seeds,
        tuple(options.settings),
    )
    return run_protocol(asked, options.output, options.workers, is_run=not options.report_only)


def add_advise_arguments(command: argparse.ArgumentParser) -> None:
    """Add what `advise` takes, beside settings."""
    command.add_argument("--task", required=True, help="any that `grpo-ros tasks` lists")
    command.add_argument("--minutes", type=float, default=10.0, help="for the pilot (10)")
    command.add_argument(
        "--steps", type=int, metavar="N", help="of a run at most (the task's budget)"
    )
    command.add_argument("--workers", type=int, metavar="N", help="runs at a time (all cores)")
    command.add_argument("--output", default="", metavar="DIR", help="(advice/TASK)")


def advise(options: argparse.Namespace) -> int:
    """Find out by a short pilot whether PPO or GRPO serves a task, or say what is missing.

    Exit codes: 0 there is an answer, if only that it is not conclusive; 1 a run failed; 130
    interrupted, and the same command goes on.
    """
    from grpo_ros.experiments.pilot import run_pilot

    return run_pilot(
        options.task,
        60.0 * options.minutes,
        options.steps,
        tuple(options.settings),
        options.output,
        options.workers,
    )


COMMANDS = (
    ("protocol", protocol, add_protocol_arguments),
    ("advise", advise, add_advise_arguments),
)
"""Name, what it does, what it takes."""
