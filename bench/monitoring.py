"""What it costs that a training run is watched: iterations of the same run, watched and not.

Three processes make the same run, bit for bit (the bench compares the hashes of their states):
`bare`, the trainer alone; `unheard`, the node `learner` as it is launched, with metrics' files,
TensorBoard, histograms, group paths and its topics, to which nobody listens; `heard`, the same
with one subscriber to every topic, the camera's included, in a fourth process. They take turns of
some iterations, forward and back (A B C C B A), so that a change of load meets all of them, and
each is timed by its own wall clock and by the CPU time of all threads of its process.

Where other work shares the cores, both times scatter by far more than the cost. So each process
also counts the CPU time of what it does for whoever watches (`monitored_run.Meter`); its share of
all CPU time of the process meets the same load above and below the line.

What is throttled by the wall clock is due at each turn's beginning, after the others' turns, so
that short turns overestimate the cost.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import ros_helpers  # noqa: F401 - finds the tests' helpers

Row = tuple[str, str, str]
DEADLINE_S = 300.0
SETTINGS = (
    "task=pick_place",
    "collection.env_steps=100000000",
    "evaluation.every_iterations=100000",
    "evaluation.episodes=192",
    "evaluation.final_episodes=192",
    "checkpoint.every_iterations=100000",
    "film=false",
    "seed=0",
)
"""Without evaluations and checkpoints, which cost both sides the same."""
CONTENDERS = {"bare": "bare", "unheard": "monitored", "heard": "monitored"}
MEASURES = {"cpu_s": "CPU second", "wall_s": "second"}


class Run:
    """A process of `bench.monitored_run`.

    Args:
        kind: of the run. domain: of its topics.
        folder: where it writes.
        settings: of training.
    """

    def __init__(self, kind: str, domain: int, folder: Path, settings: Sequence[str]) -> None:
        from deploy_helpers import ENVIRONMENT

        asked, self._ask = os.pipe()
        self._answers, told = os.pipe()
        self._pending = b""
        self.log = folder / f"{kind}.{domain}.log"
        command = [sys.executable, "-m", "bench.monitored_run", kind, str(asked), str(told)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *settings],
                pass_fds=(asked, told),
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT, "ROS_DOMAIN_ID": str(domain)},
            )
        os.close(asked)
        os.close(told)

    def answer(self) -> dict[str, Any]:
        """Return the next answer."""
        deadline = time.monotonic() + DEADLINE_S
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            more = os.read(self._answers, 65536) if ready else b""
            if not more:
                end = self.log.read_text()[-2000:]
                raise RuntimeError(f"no answer of {self.log.name}, which ends: {end}")
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        return dict(json.loads(line))

    def turn(self, num: int) -> list[dict[str, Any]]:
        """Return the answers of `num` iterations; it waits for the next turn then."""
        os.write(self._ask, f"{num}\n".encode())
        answers = [self.answer() for _ in range(num)]
        assert self.answer() == {"ready": True}
        return answers

    def end(self) -> None:
        """Ask for the end; SIGKILL only after a deadline."""
        for pipe in (self._ask, self._answers):
            os.close(pipe)
        try:
            self.process.wait(30.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cost(rounds: int = 12, num: int = 4, warm_up: int = 1) -> Iterator[Row]:
    """Time turns of `num` iterations of pick_place's preset, watched and not, in turn."""
    from deploy_helpers import ENVIRONMENT

    first = int(ENVIRONMENT["ROS_DOMAIN_ID"])
    with tempfile.TemporaryDirectory() as name:
        folder, runs = Path(name), {}
        try:
            for i, (contender, kind) in enumerate(CONTENDERS.items()):
                settings = [*SETTINGS, f"output={folder / contender}"]
                runs[contender] = Run(kind, 1 + (first + i) % 100, folder, settings)
            listener = runs["listener"] = Run("listening", 1 + (first + 2) % 100, folder, ())
            for run in runs.values():
                assert run.answer() == {"ready": True}
            found = _take_turns(runs, rounds, num, warm_up)
            (heard,) = listener.turn(1)
        finally:
            for run in runs.values():
                run.end()
    yield from _rows(found)
    for topic, count in sorted(heard["heard"].items()):
        yield f"heard {topic}", f"{count} messages", ""


def _take_turns(
    runs: dict[str, Run], rounds: int, num: int, warm_up: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return each contender's sums over turns, by what was measured."""
    turns: dict[str, list[list[dict[str, Any]]]] = {name: [] for name in CONTENDERS}
    for turn in range(warm_up + rounds):
        order = list(CONTENDERS) if turn % 2 == 0 else list(reversed(CONTENDERS))
        for name in order:
            turns[name].append(runs[name].turn(num))
        hashes = {tuple(each["hash"] for each in turns[name][-1]) for name in CONTENDERS}
        assert len(hashes) == 1, "a run that is watched differs from one that is not"
    keys = ("env_steps", "watch_s", *MEASURES)
    return {
        name: {
            key: np.array([sum(each[key] for each in turn) for turn in taken[warm_up:]])
            for key in keys
        }
        for name, taken in turns.items()
    }


def _rows(found: dict[str, dict[str, np.ndarray]]) -> Iterator[Row]:
    for key, unit in MEASURES.items():
        for name, sums in found.items():
            yield _row(f"{name}: steps per {unit}", sums["env_steps"] / sums[key], "{:,.0f}")
        for name in ("unheard", "heard"):
            off, on = found["bare"][key], found[name][key]
            yield _row(f"{name}: cost, per {unit}", 100.0 * (1.0 - off / on), "{:+.2f} %")
            yield f"{name}: cost of all turns", *_total(off, on)
    for name in ("unheard", "heard"):
        spent, of_all = found[name]["watch_s"], found[name]["cpu_s"]
        yield _row(f"{name}: share of CPU time, counted", 100.0 * spent / of_all, "{:.2f} %")
        share = 100.0 * spent.sum() / of_all.sum()
        yield f"{name}: share of CPU time, all turns", f"{share:.2f} %", ""


def _row(what: str, values: np.ndarray, text: str) -> Row:
    low, middle, high = (text.format(value) for value in np.quantile(values, [0.1, 0.5, 0.9]))
    return what, middle, f"{low} to {high}"


def _total(off: np.ndarray, on: np.ndarray, draws: int = 2000) -> tuple[str, str]:
    """Return the cost over all turns and its 95 % interval (bootstrap over turns)."""
    rows = np.random.default_rng(0).integers(len(off), size=(draws, len(off)))
    drawn = 100.0 * (1.0 - off[rows].sum(axis=1) / on[rows].sum(axis=1))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{100.0 * (1.0 - off.sum() / on.sum()):+.2f} %", f"95 %: {low:+.2f} to {high:+.2f} %"
