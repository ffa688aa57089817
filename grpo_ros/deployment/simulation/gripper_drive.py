"""Gripper drive: when a gripper's goal is over.

Facts from ros2_controllers, gripper_controllers and parallel_gripper_controller: a goal is
reached at less than goal_tolerance from its position, even on the way; a gripper whose speed was
not above stall_velocity_threshold for more than stall_timeout has stalled, which is a success
with allow_stalling and an abort without it.
"""

from __future__ import annotations

from typing import Literal

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.trajectory_follower import SECOND_NS

GripperEnd = Literal["reached", "stalled"]


class GripperDrive:
    """Watches a gripper's way to its goal.

    Args:
        settings: tolerances.

    Attributes:
        target: position of the driver joint that is commanded, m.
    """

    def __init__(self, settings: ControllerSettings) -> None:
        self._settings = settings
        self.target = 0.0
        self._moved_ns = 0

    def command(self, position: float, now_ns: int) -> None:
        """Send the driver joint to a position, m."""
        self.target, self._moved_ns = position, now_ns

    def check(self, now_ns: int, position: float, speed: float) -> GripperEnd | None:
        """Return how the goal ended, if it did by now.

        Args:
            now_ns: the present.
            position, speed: measured, m and m/s.
        """
        settings = self._settings
        if abs(self.target - position) < settings.gripper_goal_tolerance_m:
            return "reached"
        if abs(speed) > settings.gripper_stall_velocity_m_s:
            self._moved_ns = now_ns
        elif now_ns - self._moved_ns > settings.gripper_stall_timeout_s * SECOND_NS:
            return "stalled"
        return None
