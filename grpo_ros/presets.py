"""Presets: where the YAML files of config/ are, with and without an ament index."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.tasks.folders import task_folders

PACKAGE = "grpo_ros"


def share_directory() -> Path:
    """Return the folder that holds config/ and launch/.

    A source checkout counts first, so that an edit takes effect; then the ament index; then the
    share/ folder of the environment.

    Raises:
        ConfigurationError: none of them has it.
    """
    candidates = []
    for candidate in _candidates():
        if (candidate / "config").is_dir():
            return candidate
        candidates.append(candidate)
    raise ConfigurationError(
        "no folder with the presets (config/)",
        expected="one of " + ", ".join(map(str, candidates)),
        remedy="install the package again",
    )


def preset_file(kind: str, name: str) -> Path | None:
    """Return <name>.yaml of a kind, or None where nothing needs to differ from defaults."""
    for folder in _folders(kind):
        if (path := folder / f"{name}.yaml").is_file():
            return path
    return None


def preset_names(kind: str) -> list[str]:
    """Return the names of the presets of a kind (simulators, tasks, policies, nodes)."""
    return sorted({path.stem for folder in _folders(kind) for path in folder.glob("*.yaml")})


def node_parameters(node: str) -> Path:
    """Return the parameter file of a node, config/nodes/<node>.yaml.

    Raises:
        ConfigurationError: there is none.
    """
    path = preset_file("nodes", node)
    if path is None:
        raise ConfigurationError(
            f"no parameter file of node '{node}'", remedy=nearest(node, preset_names("nodes"))
        )
    return path


def _folders(kind: str) -> list[Path]:
    """Return config/<kind> and, for tasks, the folders of the user's own."""
    own = share_directory() / "config" / kind
    return [own, *task_folders()] if kind == "tasks" else [own]


def _candidates() -> Iterator[Path]:
    yield Path(__file__).resolve().parents[1]
    yield from _ament_share()
    yield Path(sys.prefix) / "share" / PACKAGE


def _ament_share() -> list[Path]:
    try:
        from ament_index_python.packages import (  # type: ignore[import-not-found, unused-ignore]
            PackageNotFoundError,
            get_package_share_directory,
        )
    except ImportError:
        return []
    try:
        return [Path(get_package_share_directory(PACKAGE))]
    except (PackageNotFoundError, LookupError):
        return []
