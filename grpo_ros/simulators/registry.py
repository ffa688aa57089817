"""Simulators by name; each is imported only when it is asked for."""

from __future__ import annotations

from typing import Any

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.simulators.base import Simulator
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.environment import EnvironmentTask

SIMULATORS = ("mujoco", "isaaclab")


def make_simulator(name: str, task: Task, num_envs: int, config: Any = None) -> Simulator:
    """Return the named simulator with N environments of a task.

    Raises:
        ConfigurationError: no simulator of that name.
        MissingExtraError: what the simulator needs is not installed.
    """
    if isinstance(task, EnvironmentTask) and name != "isaaclab":
        raise ConfigurationError(
            f"task '{task.name}' on simulator '{name}'", remedy="simulator:=isaaclab"
        )
    if name == "mujoco":
        from grpo_ros.simulators.mujoco.simulator import MujocoSimulator

        return MujocoSimulator(task, num_envs, config)
    if isinstance(task, EnvironmentTask):
        from grpo_ros.simulators.isaaclab.environment import IsaacLabEnvironment

        return IsaacLabEnvironment(task, num_envs, config)
    if name == "isaaclab":
        from grpo_ros.simulators.isaaclab.simulator import IsaacLabSimulator

        return IsaacLabSimulator(task, num_envs, config)
    raise ConfigurationError(f"simulator '{name}'", remedy=nearest(name, SIMULATORS))
