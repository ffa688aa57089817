"""The run of a cell: where it is, whether it is done, and how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from grpo_ros.configuration import Layer, config_hash, merge, read_layer
from grpo_ros.errors import ConfigurationError
from grpo_ros.experiments.study import Cell
from grpo_ros.files import read_json_lines
from grpo_ros.training.run_directory import FINISHED, RunDirectory
from grpo_ros.training.settings import TrainConfig


def runs_folder(output: Path) -> Path:
    """Return the folder of all runs of a study."""
    return output / "runs"


def folder_of(cell: Cell, output: Path) -> Path:
    """Return the folder that a cell's runs are made in."""
    return runs_folder(output) / cell.name


def finished_run(cell: Cell, output: Path) -> RunDirectory | None:
    """Return the newest finished run of a cell; None where there is none."""
    for run in runs_of(cell, output):
        status = run.read_json("status.json") or {}
        if status.get("state") == FINISHED:
            return run
    return None


def runs_of(cell: Cell, output: Path) -> Iterator[RunDirectory]:
    """Yield all runs with the cell's settings, the newest first.

    Settings are compared as they are understood today: one that came later counts with its
    default in runs from before.
    """
    wanted = config_hash(cell.config())
    found = folder_of(cell, output).glob("*/*/*/config.yaml")
    for path in sorted(found, key=lambda path: path.parent.name, reverse=True):
        run = RunDirectory(path.parent)
        if not path.parent.is_symlink() and _hash_of(run) == wanted:
            yield run


def env_steps_done(cell: Cell, output: Path) -> int:
    """Return how far the newest run of a cell has come."""
    for run in runs_of(cell, output):
        lines = read_json_lines(run.metrics)
        return int(lines[-1].get("env_steps", 0)) if lines else 0
    return 0


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
