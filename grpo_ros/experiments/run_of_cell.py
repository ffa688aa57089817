"""The run of a cell: where it is, whether it is done, and how far it has come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grpo_ros.configuration import Layer, config_hash, merge, read_layer
from grpo_ros.errors import ConfigurationError
from grpo_ros.experiments.study import Cell
from grpo_ros.files import read_json_lines
from grpo_ros.training.demonstrations import folder_sha256
from grpo_ros.training.demonstrations.of_run import provenance
from grpo_ros.training.run_directory import FINISHED, RunDirectory
from grpo_ros.training.settings import TrainConfig

RESULTS = {"evaluation.json": "start", "outcomes.json": "outcome"}
"""Files that a finished run is judged by, and what each has."""


def runs_folder(output: Path) -> Path:
    """Return the folder of all runs of a study."""
    return output / "runs"


def folder_of(cell: Cell, output: Path) -> Path:
    """Return the folder that a cell's runs are made in."""
    return runs_folder(output) / cell.name


def identity(cell: Cell) -> tuple[str, str]:
    """Return what a cell's runs have in common: hashes of settings, and of data that is cloned.

    Raises:
        DemonstrationError: there are no demonstrations where the cell says.
    """
    config = cell.config()
    path = config.demonstrations.path
    return config_hash(config), _data_sha256(Path(path)) if path else ""


@functools.cache
def _data_sha256(folder: Path) -> str:
    """Return a folder's hash as it was first asked for: a study is of one content."""
    return folder_sha256(folder)


def finished_run(
    cell: Cell, output: Path, say: Callable[[str], None] | None = None
) -> RunDirectory | None:
    """Return the newest finished run of a cell with a result; None where there is none.

    Args:
        cell: which run of the study.
        output: the study's folder.
        say: told of a finished run whose result is damaged.
    """
    for run in runs_of(cell, output):
        if (run.read_json("status.json") or {}).get("state") != FINISHED:
            continue
        damaged = [name for name, key in RESULTS.items() if key not in _mapping(run, name)]
        if not damaged:
            return run
        if say is not None:
            say(f"{run.path} does not count: {' and '.join(damaged)} cannot be read")
    return None


def runs_of(cell: Cell, output: Path) -> Iterator[RunDirectory]:
    """Yield all runs with the cell's settings and data, the newest first.

    Settings are compared as they are understood today: one that came later counts with its
    default in runs from before.

    Raises:
        DemonstrationError: there are no demonstrations where the cell says.
    """
    wanted = identity(cell)
    found = folder_of(cell, output).glob("*/*/*/config.yaml")
    for path in sorted(found, key=lambda path: path.parent.name, reverse=True):
        run = RunDirectory(path.parent)
        if not path.parent.is_symlink() and (_hash_of(run), data_of(run)) == wanted:
            yield run


def env_steps_done(cell: Cell, output: Path) -> int:
    """Return how far the newest run of a cell has come."""
    for run in runs_of(cell, output):
        lines = read_json_lines(run.metrics)
        return int(lines[-1].get("env_steps", 0)) if lines else 0
    return 0


def data_of(run: RunDirectory) -> str:
    """Return the hash of the data that a run has cloned; empty where it was none of a folder."""
    return provenance(run).get("demonstrations_sha256", "")


def _mapping(run: RunDirectory, name: str) -> dict[str, Any]:
    found = run.read_json(name)
    return found if isinstance(found, dict) else {}


def _hash_of(run: RunDirectory) -> str:
    try:
        return hash_of_layer(read_layer(run.path / "config.yaml"))
    except ConfigurationError:
        return ""  # cannot be read


def hash_of_layer(layer: Layer) -> str:
    """Return the hash of settings as they are understood today; empty if they are not."""
    try:
        return config_hash(merge(TrainConfig, [layer]))
    except ConfigurationError:
        return ""
