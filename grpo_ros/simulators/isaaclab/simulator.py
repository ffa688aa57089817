"""IsaacLabSimulator: N environments of one of our tasks in Isaac Lab."""

from __future__ import annotations

from grpo_ros.simulators.batched import BatchedSimulator
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.isaaclab.physics import IsaacLabPhysics
from grpo_ros.tasks.base import Task


class IsaacLabSimulator(BatchedSimulator):
    """N environments of one task in Isaac Lab; see `BatchedSimulator`.

    Args:
        task: what is simulated, with its robot.
        num_envs: N.
        config: backend, device, time step.

    Raises:
        MissingExtraError: Isaac Lab, or what the backend needs, is not installed.
        SimulatorError: see `IsaacLabPhysics`.
    """

    physics: IsaacLabPhysics

    def __init__(self, task: Task, num_envs: int, config: IsaacLabConfig | None = None) -> None:
        physics = IsaacLabPhysics(task, num_envs, config or IsaacLabConfig())
        try:
            super().__init__(task, physics)
        except BaseException:  # the process has one simulation, which must not stay held
            physics.close()
            raise
