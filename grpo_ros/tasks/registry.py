"""Tasks by name."""

from __future__ import annotations

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.navigate import Navigate, NavigateConfig
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig

TASKS: dict[str, tuple[type, type]] = {
    "pick_place": (PickPlace, PickPlaceConfig),
    "navigate": (Navigate, NavigateConfig),
}
"""Name -> (task class, its config dataclass)."""


def make_task(name: str, config: object | None = None) -> Task:
    """Return the named task.

    Raises:
        ConfigurationError: no task of that name.
    """
    if name not in TASKS:
        raise ConfigurationError(f"task '{name}'", remedy=nearest(name, TASKS))
    task: Task = TASKS[name][0](config)
    return task
