"""GroupPaths: where the members of a rollout's groups went, for whoever watches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from grpo_ros.simulators.base import Simulator
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.training.rollout import Rollout

SHOWN = 48
"""Rollouts that are followed at most; whole groups of them."""


@dataclasses.dataclass(frozen=True)
class GroupPaths:
    """Paths of S rollouts, of the first groups of a rollout.

    Attributes:
        points: (S, T + 1, 3) float32, the robot's tip before each decision and at the end, in the
            base frame, m; a rollout that has ended stays where it is.
        group: (S,) int64, which group each belongs to.
        outcome: (S,) bool, the verified outcome held.
        advantage: (S,) float32, outcome minus the group's mean; of groups of one, minus that of
            all.
        iteration: of the rollout.
    """

    points: Tensor
    group: Tensor
    outcome: Tensor
    advantage: Tensor
    iteration: int


class PathTrace:
    """Follows the tips of the first environments while groups are rolled out.

    Args:
        simulator: whose environments these are.
        is_wanted: asked as each rollout begins; those that nobody wants are not followed.
    """

    def __init__(self, simulator: Simulator, is_wanted: Callable[[], bool] = lambda: True) -> None:
        self._simulator, self._is_wanted = simulator, is_wanted
        self._is_following = False
        self._joints: list[Tensor] = []

    @property
    def is_possible(self) -> bool:
        """Whether the robot is known here; an environment of a simulator's own has none."""
        return not isinstance(self._simulator.task, EnvironmentTask)

    @property
    def is_noted(self) -> bool:
        """Whether the last rollout was followed."""
        return bool(self._joints)

    def begin(self) -> None:
        """Forget the last rollout; follow the next if somebody wants it."""
        self._joints, self._is_following = [], self._is_wanted()

    def note(self) -> None:
        """Note where the environments are now."""
        if not self._is_following:
            return
        scene = self._simulator.scene()
        chain = self._simulator.task.robot.chain
        self._joints.append(scene.joints(chain.joint_names)[:SHOWN].clone())

    def paths(self, rollout: Rollout, iteration: int) -> GroupPaths:
        """Return what was noted, with how the rollouts turned out."""
        size = rollout.group_size
        num = max(1, SHOWN // size) * size
        joints = torch.stack([row[:num] for row in self._joints], dim=1)
        shown = len(joints)
        chain = self._simulator.task.robot.chain
        tips = chain.forward(joints.flatten(0, 1))[0].view(shown, -1, 3)
        outcome = rollout.outcome.nan_to_num()
        if size > 1:
            mean = outcome.view(-1, size).mean(dim=1).repeat_interleave(size)
        else:
            mean = outcome.mean().expand(len(outcome))
        return GroupPaths(
            tips.float(),
            torch.arange(shown) // size,
            outcome[:shown] >= 0.5,
            (outcome - mean)[:shown],
            iteration,
        )
