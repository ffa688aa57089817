"""`grpo-ros replay`: a failed rollout of a run, replayed, filmed and branched."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpo_ros.training.failures.of_run import ReplayedRun
    from grpo_ros.training.failures.replay import Branches, Replay

LISTED = 20
MOST_POINTS, MEMBERS = 12, 16
FILMED_BRANCHES = 5


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of `grpo-ros replay`."""
    command.add_argument(
        "rollout",
        nargs="?",
        metavar="ID",
        help="iteration/group/member, as 12/3/5, or heldout/NUMBER; absent: list what failed",
    )
    command.add_argument(
        "--run",
        dest="folder",
        default="runs/latest",
        metavar="DIR",
        help="a run's folder (runs/latest)",
    )
    command.add_argument("--all", action="store_true", help="list all, not the newest only")
    command.add_argument(
        "--at",
        type=int,
        nargs="+",
        metavar="DECISION",
        help=f"branch off before these decisions ({MOST_POINTS} of them, evenly spread)",
    )
    command.add_argument(
        "--members",
        type=int,
        default=MEMBERS,
        help=f"new rollouts from each moment ({MEMBERS}); 0: only replay",
    )
    command.add_argument("--seed", type=int, default=0, help="of the new rollouts' noise (0)")
    command.add_argument("--no-film", action="store_true", help="draw no pictures")
    command.add_argument("--output", metavar="DIR", help="instead of RUN/replays/ID")


def replay(options: argparse.Namespace) -> int:
    """Live through a failed rollout again, bit for bit, and see where it was lost.

    Without an ID: list the rollouts that failed. With one: replay it from its exact start, film
    it, and let the run's newest policy go on from moments on the way, so that the share that
    still succeeds tells where it was lost.
    """
    from grpo_ros.training.failures.failure import FailureId
    from grpo_ros.training.failures.of_run import ReplayedRun

    run = ReplayedRun(Path(options.folder))
    if options.rollout is None:
        print("\n".join(_listed(run, options.all)))
        return 0
    name = FailureId.parsed(options.rollout)
    folder = Path(options.output or run.path / "replays" / str(name).replace("/", "-"))
    with run.opened(name, options.at, max(0, options.members), MOST_POINTS) as opened:
        again = opened.replayed
        print(_told(again, opened.period_s))
        print(_verdict(again))
        branches = opened.branch(options.seed) if options.members else None
        if branches is not None:
            print("\n".join(_branch_lines(branches)))
        folder.mkdir(parents=True, exist_ok=True)
        written = [_write(folder, again, branches)]
        if not options.no_film:
            written += opened.film(folder, branches, FILMED_BRANCHES, print)
    print(f"wrote {' '.join(str(path) for path in written)}")
    return 0 if again.is_exact else 1


def _listed(run: ReplayedRun, is_all: bool) -> list[str]:
    """Return a line for each failure, the newest first; in an iteration, the rarest first."""
    failures = sorted(
        run.store.failures(), key=lambda f: (-f.id.iteration, -f.group_success, f.id)
    )
    held_out = run.held_out_failures()
    lines = []
    if held_out is not None:
        numbers, num = held_out
        shown = numbers if is_all else numbers[:LISTED]
        more = "" if len(shown) == len(numbers) else " ..."
        names = " ".join(f"heldout/{number}" for number in shown)
        lines.append(f"{len(numbers)} of {num} held-out episodes failed: {names}{more}")
    lines.append(f"{len(failures)} failed rollouts of training are kept in {run.store.folder}")
    shown_failures = failures if is_all else failures[:LISTED]
    for each in shown_failures:
        lines.append(
            f"  {each.id!s:12} {each.num_steps:4d} control periods, score {each.score:.2f}, "
            f"{100.0 * each.group_success:3.0f} % of its group succeeded"
        )
    if len(shown_failures) < len(failures):
        lines.append(f"  ... {len(failures) - len(shown_failures)} more: --all")
    return lines


def _told(again: Replay, period_s: float) -> str:
    failure, end = again.failure, "succeeded" if again.outcome else "failed"
    group = ""
    if failure.id.held_out is None:
        group = f"; {100.0 * failure.group_success:.0f} % of its group succeeded"
    return (
        f"rollout {failure.id}: {end} after {failure.num_steps} control periods "
        f"({failure.num_steps * period_s:.2f} s), score {failure.score:.2f}{group}"
    )


def _verdict(again: Replay) -> str:
    if again.is_exact:
        return f"replayed bit for bit: it ends in state {again.final_hash} again"
    return (
        f"NOT exact: it ends in state {again.final_hash}, and ended in "
        f"{again.failure.final_hash}; another machine may compute otherwise"
    )


def _branch_lines(branches: Branches) -> list[str]:
    """Return what still succeeds from each moment, and where that was lost."""
    lines = ["what the run's newest policy makes of it from there:"]
    for point in branches.points:
        low, high = point.wilson_95
        lines.append(
            f"  decision {point.decision:3d} ({point.time_s:6.2f} s): {point.successes:3d} of "
            f"{point.num} succeed [{low:.2f}, {high:.2f}]"
        )
    if len(branches.points) > 1:
        lines.append(where_lost(branches))
    return lines


def where_lost(branches: Branches) -> str:
    """Return a sentence on the moment after which most rollouts fail."""
    last = branches.last_good
    if last is None:
        return "from no moment of it do half succeed: it was lost as it began, for this policy"
    after = branches.points[branches.points.index(last) + 1 :]
    if not after:
        return "from every moment, the last included, it could still be saved"
    return (
        f"it was lost between {last.time_s:.2f} s ({last.successes} of {last.num} still succeed) "
        f"and {after[0].time_s:.2f} s ({after[0].successes} of {after[0].num})"
    )


def _write(folder: Path, again: Replay, branches: Branches | None) -> Path:
    from grpo_ros.files import write_atomically

    points: Sequence[Any] = () if branches is None else branches.points
    report = {
        "rollout": str(again.failure.id),
        "is_exact": again.is_exact,
        "final_hash": again.final_hash,
        "expected_hash": again.failure.final_hash,
        "success": again.outcome,
        "score": again.score,
        "num_steps": again.failure.num_steps,
        "branches": [
            {**dataclasses.asdict(point), "wilson_95": list(point.wilson_95)} for point in points
        ],
    }
    path = folder / "replay.json"
    write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
    return path
