"""Runs that are killed at random instants and resumed end as those that never were.

python -m bench.resume --kills 50                          (make bench-resume)
python -m bench.resume --kills 5 --variants isaaclab       (needs the extra isaaclab)

Each run is killed once, by SIGKILL, somewhere between the making of its folder and its end, and
the same command is given again until it is finished. Its metrics must equal, byte for byte, those
of a run that was left alone, and so must the hash of its last state: weights, optimiser, counters.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VARIANTS = {
    "grpo": (),
    "ppo": ("algorithm=ppo",),
    "hybrid": ("algorithm=hybrid", "hybrid.patience=1"),
    "starts": (
        "starts.selection=learned",
        "starts.branch_fraction=0.3",
        "starts.branch_at=divergence",
        "starts.curriculum_fraction=0.3",
        "starts.curriculum_demonstrations=4",
        "grpo.success_buffer=4",
    ),
    "flow": ("policy=flow",),
    "isaaclab": (
        "simulator=isaaclab",
        "collection.env_steps=1500",
        "demonstrations.episodes=2",
        "evaluation.every_iterations=2",
        "evaluation.episodes=4",
        "evaluation.final_episodes=4",
        "checkpoint.every_iterations=1",
    ),
}
EXTRA_VARIANTS = ("isaaclab",)
"""They need an extra that `make setup` does not install, so they run where they are asked for."""
SETTINGS = (
    "task=pick_place",
    "num_groups=3",
    "group_size=4",
    "collection.env_steps=7000",
    "demonstrations.episodes=4",
    "behaviour_cloning.num_steps=60",
    "algorithm.objectives=[score]",
    "evaluation.every_iterations=4",
    "evaluation.episodes=12",
    "evaluation.final_episodes=24",
    "checkpoint.every_iterations=2",
    "film=false",
    "seed=7",
)
DEADLINE_S = 300.0


@dataclasses.dataclass(frozen=True)
class End:
    """How a run ended: its metrics, and the hash of its last state."""

    metrics: str
    state_hash: str


@dataclasses.dataclass(frozen=True)
class Kill:
    """One run that was killed.

    Attributes:
        variant: which settings.
        after_s: seconds after its folder was made.
        iteration: the last that its metrics told; -1: none.
        is_same: whether it ended as the run that was left alone.
    """

    variant: str
    after_s: float
    iteration: int
    is_same: bool


def straight(variant: str, folder: Path) -> tuple[End, float]:
    """Run to the end; return how it ended, and the seconds from its folder to there."""
    with _running(variant, folder) as process:
        _wait_for_folder(folder, process)
        began_s = time.monotonic()
        _finish(process, folder)
    return _end(folder), time.monotonic() - began_s


def killed(variant: str, folder: Path, after_s: float, expected: End) -> Kill | None:
    """Kill a run, resume it until it is finished; None where it was finished before."""
    with _running(variant, folder) as process:
        _wait_for_folder(folder, process)
        time.sleep(after_s)
        if process.poll() is not None:
            return None
    iteration = _last_iteration(folder)
    with _running(variant, folder) as process:
        _finish(process, folder)
    return Kill(variant, after_s, iteration, _end(folder) == expected)


def random_kills(
    num: int, seed: int, variants: list[str], jobs: int = 1, say: Callable[[Kill], None] = print
) -> list[Kill]:
    """Kill so many runs, the variants in turn, some at once; return what became of them."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        folders = [Path(name) / variant for variant in variants]
        ends = dict(zip(variants, pool.map(straight, variants, folders), strict=True))

        def nth(i: int) -> Kill:
            variant, instants = variants[i % len(variants)], random.Random(f"{seed} {i}")
            expected, lasts_s = ends[variant]
            kill = None
            while kill is None:  # it was finished before that instant
                folder = Path(tempfile.mkdtemp(prefix=f"{variant}-", dir=name))
                kill = killed(variant, folder, instants.uniform(0.0, lasts_s), expected)
            say(kill)
            return kill

        return list(pool.map(nth, range(num)))


@contextlib.contextmanager
def _running(variant: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start or resume a run; on leaving it is killed, whatever it is at, by SIGKILL."""
    command = [sys.executable, "-m", "grpo_ros", "train", *SETTINGS, *VARIANTS[variant]]
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, f"output={folder}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("pick_place/*/*/status.json"))


def _wait_for_folder(folder: Path, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not _runs(folder):
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"no run was made: {(folder / 'log').read_text()}")
        time.sleep(0.01)


def _finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait(DEADLINE_S):
        raise RuntimeError(f"a run ended with {process.returncode}: {folder / 'log'}")


def _finished_run(folder: Path) -> Path:
    finished = [
        path
        for path in _runs(folder)
        if json.loads((path / "status.json").read_text())["state"] == "finished"
    ]
    return min(finished)  # a second one was begun where the kill came after the end


def _end(folder: Path) -> End:
    run = _finished_run(folder)
    last = sorted(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())[-1]
    manifest = json.loads((last / "manifest.json").read_text())
    return End((run / "metrics.jsonl").read_text(), manifest["state_hash"])


def _last_iteration(folder: Path) -> int:
    iteration = -1
    for run in _runs(folder):
        if (run / "metrics.jsonl").exists():
            lines = (run / "metrics.jsonl").read_text().splitlines()
            iteration = max(iteration, len(lines) - 1)
    return iteration


def main() -> int:
    """Kill runs; print a line for each; return 0 if all ended as those that were left alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    usual = [variant for variant in VARIANTS if variant not in EXTRA_VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=usual)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--jobs", type=int, default=cores, help="runs at once; default: a core each"
    )
    options = parser.parse_args()

    def say(kill: Kill) -> None:
        verdict = "same" if kill.is_same else "DIFFERENT"
        print(
            f"{kill.variant:<8} killed after {kill.after_s:5.2f} s, "
            f"iteration {kill.iteration:>3}: {verdict}",
            flush=True,
        )

    found = random_kills(options.kills, options.seed, options.variants, options.jobs, say)
    same = sum(kill.is_same for kill in found)
    print(f"{same} of {len(found)} runs ended with the same metrics and the same state")
    return 0 if same == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
