"""What a report reads: the files of a run's folder, as far as they are there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grpo_ros.files import read_json_lines


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The contents of a run's folder; empty where a file is absent or damaged.

    Attributes:
        path: the folder.
        config, contract, evaluation: of config.yaml, contract.json and evaluation.json.
        metrics, timing: one mapping per iteration.
        decisions: one mapping per change of the way of learning.
        outcomes: of outcomes.json.
        films: name -> animated WebP.
    """

    path: Path
    config: Mapping[str, Any]
    contract: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    timing: Sequence[Mapping[str, Any]]
    films: Mapping[str, bytes]
    decisions: Sequence[Mapping[str, Any]] = ()
    outcomes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def series(self, *names: str) -> list[tuple[float, ...]]:
        """Return (env_steps, value of each name) of the iterations that have all of them."""
        wanted = ("env_steps", *names)
        return [
            tuple(float(entry[name]) for name in wanted)
            for entry in self.metrics
            if all(isinstance(entry.get(name), int | float) for name in wanted)
        ]


def read_run(path: Path) -> RunFiles:
    """Return what is in a run's folder."""
    films = {film.stem: film.read_bytes() for film in sorted((path / "films").glob("*.webp"))}
    return RunFiles(
        path,
        _yaml(path / "config.yaml"),
        _json(path / "contract.json"),
        _json(path / "evaluation.json"),
        read_json_lines(path / "metrics.jsonl"),
        read_json_lines(path / "timing.jsonl"),
        films,
        read_json_lines(path / "decisions.jsonl"),
        _json(path / "outcomes.json"),
    )


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return data if isinstance(data, dict) else {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
