"""Rows: the complete state of N environments, one row each, whatever moves the bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo_ros.tasks.base import Body

CONTROLLER_KEYS = ("target", "velocity", "tip", "yaw", "gripper")
MASS, FRICTION, GAIN, DELAY, NOISE = range(5)
"""Columns of `Rows.draws`."""
MAX_DELAY = 2


@dataclasses.dataclass
class Rows:
    """State of N environments; every attribute is an array with N rows.

    Attributes:
        physics: (N, S), what the engine's next step starts from, in the engine's own precision.
        placed: (N, B, 7) float64, poses of bodies that physics does not move (the goal).
        target, velocity, tip, yaw, gripper: the controller's state (controllers/).
        last_action: (N, A) float64, clipped, as executed.
        queue: (N, D, A) float64, actions on their way where action delay is on; oldest first.
        draws: (N, 5) float64, mass, friction and gain factors, delay in periods, noise (m).
        key: (N, 4) int64, whose observation noise this is.
        step_count: (N,) int64, control periods since reset.
        terminated, truncated, outcome: (N,) bool, latched. score: (N,) float32.
    """

    physics: Tensor
    placed: Tensor
    target: Tensor
    velocity: Tensor
    tip: Tensor
    yaw: Tensor
    gripper: Tensor
    last_action: Tensor
    queue: Tensor
    draws: Tensor
    key: Tensor
    step_count: Tensor
    terminated: Tensor
    truncated: Tensor
    outcome: Tensor
    score: Tensor

    def arrays(self) -> dict[str, Tensor]:
        """Return the arrays themselves, by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def placed_bodies(bodies: Sequence[Body]) -> tuple[Body, ...]:
    """Return the bodies that stay where they are put, in the order of `Rows.placed`."""
    return tuple(body for body in bodies if body.motion != "dynamic")


def empty_rows(physics: Tensor, bodies: Sequence[Body], num_joints: int, num_actions: int) -> Rows:
    """Return rows of environments that were never reset, hence finished.

    Args:
        physics: (N, S) of the engine; its contents do not matter.
        bodies: of the task.
        num_joints: J, commanded joints.
        num_actions: A.
    """
    num_envs, double = len(physics), torch.float64
    placed = torch.tensor(
        [[*body.position, 0.0, 0.0, 0.0, 1.0] for body in placed_bodies(bodies)], dtype=double
    ).reshape(-1, 7)
    return Rows(
        physics=physics,
        placed=placed.repeat(num_envs, 1, 1),
        target=torch.zeros(num_envs, num_joints, dtype=double),
        velocity=torch.zeros(num_envs, num_joints, dtype=double),
        tip=torch.zeros(num_envs, 3, dtype=double),
        yaw=torch.zeros(num_envs, 1, dtype=double),
        gripper=torch.zeros(num_envs, 1, dtype=double),
        last_action=torch.zeros(num_envs, num_actions, dtype=double),
        queue=torch.zeros(num_envs, MAX_DELAY, num_actions, dtype=double),
        draws=torch.ones(num_envs, 5, dtype=double),
        key=torch.zeros(num_envs, 4, dtype=torch.long),
        step_count=torch.zeros(num_envs, dtype=torch.long),
        terminated=torch.ones(num_envs, dtype=torch.bool),
        truncated=torch.zeros(num_envs, dtype=torch.bool),
        outcome=torch.zeros(num_envs, dtype=torch.bool),
        score=torch.zeros(num_envs),
    )
