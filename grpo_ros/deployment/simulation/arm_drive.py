"""Arm drive: what moves an arm's joint targets; of all controllers the last one commanded.

On a robot one controller at a time has claimed the joints; here a command switches to its own.
Facts from ros2_controllers, forward_command_controller: a command of another width is ignored,
nothing else is checked, and without a new command the last one holds for ever.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.tolerances import Tolerances
from grpo_ros.deployment.simulation.trajectory_controller import GoalEnd, TrajectoryController
from grpo_ros.deployment.simulation.trajectory_follower import (
    SECOND_NS,
    Array,
    Motion,
    Waypoints,
)
from grpo_ros.robots.robot import Robot


class ArmDrive:
    """Turns commands of any kind into the joint targets of each physics step.

    Args:
        robot: whose arm joints are moved.
        settings: of its controllers.
        position: (A,) where they are.

    Attributes:
        trajectories: the trajectory controller.
        target: (A,) what is commanded at present.
        is_streaming: whether streamed commands have the arm, and the trajectory controller not.
        is_commanded: whether a command has come since it was reset.
    """

    def __init__(self, robot: Robot, settings: ControllerSettings, position: Array) -> None:
        self.joints = robot.arm_joints
        limits = robot.limits[: len(self.joints)]
        self._lower = np.array([limit.lower for limit in limits])
        self._upper = np.array([limit.upper for limit in limits])
        self.trajectories = TrajectoryController(self.joints, settings, position)
        self.reset(position)

    def reset(self, position: Array) -> None:
        """Hold a position (A,); no goal is active any more."""
        self.target = np.array(position, dtype=np.float64)
        self._rate = np.zeros_like(self.target)
        self.is_streaming = self.is_commanded = False
        self.trajectories.activate(self.target)

    def command(self, way: Waypoints) -> None:
        """Follow a trajectory that came by topic."""
        self.is_commanded = True
        self._to_trajectories()
        self.trajectories.command(way)

    def begin_goal(self, way: Waypoints, tolerances: Tolerances) -> GoalEnd | None:
        """Follow a goal's trajectory; return how the goal before it ended, if one was active."""
        self.is_commanded = True
        self._to_trajectories()
        return self.trajectories.begin_goal(way, tolerances)

    def stream(
        self, joints: Sequence[str], position: Array | None, velocity: Array | None
    ) -> GoalEnd | None:
        """Take a forwarded command of some joints; return how the active goal ended.

        Args:
            joints: names.
            position: targets, which are commanded at once.
            velocity: where there are no positions, how their targets move until the next command.

        Raises:
            ValueError: an unknown joint, another width, a number that is not finite; says which.
        """
        columns = [self._column(name) for name in joints]
        if len(set(columns)) < len(columns):
            raise ValueError(f"a joint comes twice in {list(joints)}")
        for values in (position, velocity):
            if values is not None and values.shape != (len(columns),):
                raise ValueError(f"{len(values)} values for {len(columns)} joints")
            if values is not None and not np.isfinite(values).all():
                raise ValueError(f"{values.tolist()} are not finite")
        if position is None and velocity is None:
            raise ValueError("neither positions nor velocities")
        self.is_commanded = True
        if not self.is_streaming:
            self._rate, self.is_streaming = np.zeros_like(self.target), True
        if position is not None:
            self.target = self.target.copy()
            self.target[columns], self._rate[columns] = position, 0.0
        elif velocity is not None:
            self._rate[columns] = velocity
        return self.trajectories.deactivate()

    def step(self, now_ns: int, step_ns: int, measured: Motion) -> GoalEnd | None:
        """Move the targets by one physics step; return how the active goal ended, if it did."""
        if not self.is_streaming:
            end = self.trajectories.update(now_ns, step_ns, measured)
            self.target = self.trajectories.output
            return end
        moved = self.target + self._rate * (step_ns / SECOND_NS)
        # A joint that is driven into its stop stays there; where it was told to go, it goes.
        bounded = np.clip(moved, self._lower, self._upper)
        self.target = np.where(self._rate == 0.0, self.target, bounded)
        return None

    def _column(self, name: str) -> int:
        if name not in self.joints:
            raise ValueError(f"joint '{name}' is unknown, expected one of {list(self.joints)}")
        return self.joints.index(name)

    def _to_trajectories(self) -> None:
        if self.is_streaming:
            self.is_streaming = False
            self.trajectories.activate(self.target)
