"""Results of a study: what each run's files say, in one file that the report is made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo_ros import typed
from grpo_ros.configuration import Layer, deciding_settings
from grpo_ros.errors import ExperimentError
from grpo_ros.experiments.run_of_cell import data_of, finished_run, hash_of_layer, identity
from grpo_ros.experiments.study import Cell, Study
from grpo_ros.files import write_atomically
from grpo_ros.report.run_files import RunFiles, read_run
from grpo_ros.training.run_directory import RunDirectory

SCHEMA = 2
FILE = "results.json"
SERIES = (
    "eval_success",
    "train_success",
    "reward_mean",
    "all_fail_fraction",
    "all_success_fraction",
    "zero_variance_fraction",
    "diversity",
    "entropy",
    "explained_variance",
    "group_weight",
    "episode_steps",
    "approx_kl",
    "replayed_fraction",
    "curriculum_distance",
    "start_branch_success",
    "start_demonstration_success",
    "start_initial_fraction",
)
"""Metrics that are kept of each curve point."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A run where its success was measured.

    Attributes:
        env_steps, gradient_steps: so far.
        wall_s, cpu_s: seconds of rollouts and updates so far; evaluations are in neither.
        values: metric -> value of that iteration, of SERIES.
    """

    env_steps: int
    gradient_steps: int
    wall_s: float
    cpu_s: float
    values: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
        scenario, arm, seed: which.
        outcomes: of the held-out episodes at the end, a "1" or "0" each.
        start_successes: of as many held-out episodes, before learning.
        env_steps, gradient_steps: in all.
        points: the curve.
        heldout_sha256: of the held-out initial states.
        versions: that results depend on.
        decisions: that the algorithm took on the way, with reasons.
        config: the settings that decide a result, as a tree.
        demonstrations_sha256: of the data that was cloned; empty where the task's script gave it.
    """

    scenario: str
    arm: str
    seed: int
    outcomes: str
    start_successes: int
    env_steps: int
    gradient_steps: int
    points: tuple[Point, ...]
    heldout_sha256: str
    versions: Mapping[str, str]
    decisions: tuple[str, ...] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    demonstrations_sha256: str = ""

    @property
    def name(self) -> str:
        """Which run of a study it is: its folder's path below the study's."""
        return f"{self.scenario}/{self.arm}/seed_{self.seed}"

    @property
    def successes(self) -> int:
        """Held-out episodes whose outcome was verified."""
        return self.outcomes.count("1")

    @property
    def success_rate(self) -> float:
        """successes / episodes."""
        return self.successes / max(1, len(self.outcomes))

    @property
    def is_cloned(self) -> bool:
        """Whether it began with a clone of demonstrations."""
        return bool(self.config.get("demonstrations", {}).get("episodes", 1))

    @property
    def start_rate(self) -> float:
        """Success before learning."""
        return self.start_successes / max(1, len(self.outcomes))


@dataclasses.dataclass(frozen=True)
class Results:
    """What is known of a study.

    Attributes:
        study: what was compared.
        runs: the finished ones.
        missing: names of those that were asked for and are not.
        command: what reproduces it.
        others: finished runs of other tasks or settings than were asked for last; they are kept,
            not reported.
    """

    study: Study
    runs: tuple[Result, ...]
    missing: tuple[str, ...] = ()
    command: str = ""
    others: tuple[Result, ...] = ()

    def of(self, scenario: str, arm: str) -> dict[int, Result]:
        """Return the runs of an arm on a scenario, by seed."""
        return {r.seed: r for r in self.runs if r.scenario == scenario and r.arm == arm}

    def arms_on(self, scenario: str) -> list[str]:
        """Return the arms with a run on a scenario, in the study's order."""
        found = {r.arm for r in self.runs if r.scenario == scenario}
        return [arm for arm in self.study.arms if arm in found]

    def write(self, path: Path) -> Path:
        """Write them as JSON, atomically; return the path."""
        tree = {"schema": SCHEMA, **typed.encode(self)}
        write_atomically(path, (json.dumps(tree, indent=None) + "\n").encode())
        return path

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return what `write` wrote.

        Raises:
            ExperimentError: the file is absent, damaged or of another schema.
        """
        try:
            tree = json.loads(path.read_text())
        except (OSError, ValueError) as problem:
            raise ExperimentError(
                f"results {path} cannot be read: {problem}", expected=f"a study's {FILE}"
            ) from problem
        found = tree.pop("schema", None) if isinstance(tree, dict) else None
        if found != SCHEMA:
            raise ExperimentError(
                f"results {path} have schema {found}",
                expected=f"schema {SCHEMA}",
                remedy="move it away; runs whose folders are there are read again",
            )
        return typed.decode(cls, tree, path="results", error=ExperimentError)


def episodes_of(run: Result) -> int:
    """Return how many episodes a run took, in training and in its measurement at the end."""
    lengths = [p.values["episode_steps"] for p in run.points if "episode_steps" in p.values]
    mean = sum(lengths) / len(lengths) if lengths else 1.0
    return round(run.env_steps / max(1.0, mean)) + len(run.outcomes)


class Recorded:
    """Runs that a results.json holds: as good as their folders, so that a study can move.

    Args:
        path: of the file; it may be absent.

    Raises:
        ExperimentError: the file is damaged or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self._runs: dict[tuple[str, str, str], Result] = {}
        if path.exists():
            found = Results.read(path)
            for run in (*found.others, *found.runs):
                self._runs[_key(run)] = run

    def of(self, cell: Cell) -> Result | None:
        """Return the run of a cell with the settings and the data that it has today."""
        return self._runs.get((cell.name, *identity(cell)))

    def without(self, runs: Sequence[Result]) -> tuple[Result, ...]:
        """Return the runs that are not among these, neither they nor such with their settings."""
        taken = {_key(run) for run in runs}
        return tuple(run for key, run in self._runs.items() if key not in taken)


def _key(run: Result) -> tuple[str, str, str]:
    """Return what tells a run from others: cell, settings as understood today, and data."""
    understood = hash_of_layer(Layer(FILE, run.config))
    settings = understood or json.dumps(run.config, sort_keys=True)
    return run.name, settings, run.demonstrations_sha256


def collect(study: Study, cells: Sequence[Cell], output: Path, command: str) -> Results:
    """Return what a study's finished runs say, and which of some cells are not finished.

    Runs are those in folders, and those that the study's results.json holds from before.

    Raises:
        ExperimentError: results.json is damaged or of another schema; or runs of a scenario were
            judged by different episodes.
        DemonstrationError: there are no demonstrations where a cell says.
    """
    recorded = Recorded(output / FILE)
    runs, missing, wanted = [], [], {cell.name for cell in cells}
    for cell in study.cells():
        run = finished_run(cell, output)
        found = _result(cell, run) if run is not None else recorded.of(cell)
        if found is not None:
            runs.append(found)
        elif cell.name in wanted:
            missing.append(cell.name)
    _require_same_episodes(runs)
    others = recorded.without(runs)
    return Results(study, tuple(runs), tuple(missing), command, others)


def _require_same_episodes(runs: Sequence[Result]) -> None:
    first: dict[str, Result] = {}
    for run in runs:
        other = first.setdefault(run.scenario, run)
        if run.heldout_sha256 != other.heldout_sha256:
            raise ExperimentError(
                f"runs {other.name} and {run.name} were judged by different episodes",
                expected="the same held-out initial states in all runs of a scenario",
                remedy="the task has changed between them: move the older's folder away, and "
                f"{FILE} too if it holds that run, to make it anew",
            )


def _result(cell: Cell, run: RunDirectory) -> Result:
    """Return what the files of a finished run say."""
    files = read_run(run.path)
    evaluation = files.evaluation
    decisions = [str(line.get("decision", "")) for line in files.decisions]
    return Result(
        cell.scenario,
        cell.arm,
        cell.seed,
        "".join("1" if outcome else "0" for outcome in files.outcomes["outcome"]),
        int(evaluation["start"]["successes"]),
        int(evaluation["env_steps"]),
        int(evaluation["gradient_steps"]),
        tuple(_points(files)),
        str(evaluation.get("heldout_sha256", "")),
        {str(k): str(v) for k, v in evaluation.get("versions", {}).items()},
        tuple(decisions),
        deciding_settings(cell.config()),
        data_of(run),
    )


def _points(files: RunFiles) -> list[Point]:
    times: dict[int, tuple[float, float]] = {}
    wall_s = cpu_s = 0.0
    for entry in files.timing:
        wall_s += float(entry.get("collect_s", 0.0)) + float(entry.get("update_s", 0.0))
        cpu_s += float(entry.get("cpu_s", 0.0))
        times[int(entry["iteration"])] = (wall_s, cpu_s)
    points = []
    for entry in files.metrics:
        if "eval_success" not in entry:
            continue
        wall, cpu = times.get(int(entry["iteration"]), (0.0, 0.0))
        values = {name: round(float(entry[name]), 5) for name in SERIES if name in entry}
        gradient_steps = int(entry.get("gradient_steps", 0))
        points.append(
            Point(int(entry["env_steps"]), gradient_steps, round(wall, 2), round(cpu, 2), values)
        )
    return points
