"""Tasks by name: this package's, and those in the folders that GRPO_ROS_TASKS names.

A task is one Python file with `TASK = MyTask` in it, and perhaps one YAML of settings beside it,
<name>.yaml: see docs/how-to/add_a_task.md.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from grpo_ros.errors import ConfigurationError, GrpoRosError, nearest
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.environment import PREFIX, EnvironmentConfig, EnvironmentTask
from grpo_ros.tasks.folders import FOLDERS_VARIABLE, task_folders
from grpo_ros.tasks.insert import Insert
from grpo_ros.tasks.navigate import Navigate
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.tasks.reach import Reach
from grpo_ros.tasks.stack import Stack

BUILT_IN: tuple[Any, ...] = (PickPlace, Stack, Insert, Reach, Navigate)

MEMBERS = (
    "name",
    "instruction",
    "Config",
    "bodies",
    "sensors",
    "cameras",
    "contract",
    "sample",
    "outcome",
    "reward_terms",
    "demonstrate",
)
"""What a task class has to have beside what its instances set."""


def find_tasks(folders: list[Path]) -> dict[str, Any]:
    """Return name -> task class: this package's and those found in `folders`.

    Files whose names begin with `_` are no tasks.

    Raises:
        ConfigurationError: a folder is missing, or a file in it cannot be imported, holds no
            task, an incomplete one, or one whose name is taken.
    """
    found: dict[str, Any] = {task.name: task for task in BUILT_IN}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigurationError(
                f"{FOLDERS_VARIABLE} names '{folder}'", expected="a folder of task files"
            )
        for path in sorted(folder.glob("[!_]*.py")):
            task = _checked(getattr(_imported(path), "TASK", None), path)
            if task.name in found:
                raise ConfigurationError(
                    f"{path}: a task is called '{task.name}' already", remedy="choose another name"
                )
            found[task.name] = task
    return found


def _imported(path: Path) -> ModuleType:
    name = f"grpo_ros_tasks_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as problem:
        raise ConfigurationError(
            f"{path} cannot be imported: {type(problem).__name__}: {problem}"
        ) from problem
    return module


def _checked(task: Any, path: Path) -> Any:
    """Return a task class; raise ConfigurationError for what it lacks."""
    if not isinstance(task, type):
        raise ConfigurationError(f"{path} has no TASK", expected="TASK = <the task's class>")
    missing = [member for member in MEMBERS if not hasattr(task, member)]
    missing += sorted(getattr(task, "__abstractmethods__", ()))
    if missing:
        raise ConfigurationError(
            f"{path}: {task.__name__} lacks {', '.join(missing)}",
            expected="a class as grpo_ros.tasks.base.Task describes it, and its Config",
        )
    config: Any = getattr(task, "Config", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ConfigurationError(
            f"{path}: {task.__name__}.Config is {config!r}", expected="a frozen dataclass"
        )
    try:
        config()
    except (TypeError, GrpoRosError) as problem:
        raise ConfigurationError(
            f"{path}: {config.__name__}() is not possible: {problem}",
            expected="settings that all have a default",
            remedy="give the field a default: typed.setting(<default>, <description>)",
        ) from problem
    return task


TASKS: dict[str, Any] = find_tasks(task_folders())
"""Name -> task class."""


def make_task(name: str, config: object | None = None) -> Task:
    """Return the named task.

    Raises:
        ConfigurationError: no task of that name.
    """
    if name.startswith(PREFIX):
        return EnvironmentTask(name, cast(EnvironmentConfig | None, config))
    if name not in TASKS:
        raise ConfigurationError(f"task '{name}'", remedy=nearest(name, TASKS))
    task: Task = TASKS[name](config)
    return task
