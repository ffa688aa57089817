"""WithBodies: a task with more in its scene than it knows of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.randomness import Key
from grpo_ros.tasks.base import Body, Outcome, Task
from grpo_ros.tasks.camera import Camera
from grpo_ros.tasks.range_scan import RangeScan
from grpo_ros.tasks.scene_state import SceneState

Pose = tuple[float, float, float, float, float, float, float]
"""Position in m and quaternion (x, y, z, w) in the robot's base frame."""


class WithBodies:
    """Another task with bodies added, which physics moves and the outcome does not see.

    Every episode starts with them at their poses.

    Args:
        task: what is done.
        added: bodies that are not static, and their initial poses.
    """

    def __init__(self, task: Task, added: Sequence[tuple[Body, Pose]]) -> None:
        self.task, self.added = task, tuple(added)
        self.name, self.instruction, self.horizon = task.name, task.instruction, task.horizon
        self.robot, self.randomisation = task.robot, task.randomisation
        self.reward_names = task.reward_names

    def bodies(self) -> Sequence[Body]:
        """Return the task's bodies, then the added ones."""
        return [*self.task.bodies(), *(body for body, _ in self.added)]

    def sensors(self) -> Sequence[RangeScan]:
        """Return the task's sensors."""
        return self.task.sensors()

    def cameras(self) -> Sequence[Camera]:
        """Return the task's cameras."""
        return self.task.cameras()

    def contract(self) -> Contract:
        """Return the task's contract."""
        return self.task.contract()

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw the task's initial states, with the added bodies."""
        scene = self.task.sample(keys)
        return dataclasses.replace(scene, poses={**scene.poses, **self.poses(len(keys))})

    def poses(self, num: int) -> dict[str, Tensor]:
        """Return the initial poses (num, 7) float64 of the added bodies."""
        return {
            body.name: torch.tensor(pose, dtype=torch.float64).repeat(num, 1)
            for body, pose in self.added
        }

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify the task's outcome."""
        return self.task.outcome(scene)

    def reward_terms(
        self, before: SceneState, after: SceneState, action: Tensor, outcome: Outcome
    ) -> Mapping[str, Tensor]:
        """Return the task's reward terms (N,)."""
        return self.task.reward_terms(before, after, action, outcome)

    def demonstrate(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the task's demonstrator's action (N, A)."""
        return self.task.demonstrate(scene, controller_state)
