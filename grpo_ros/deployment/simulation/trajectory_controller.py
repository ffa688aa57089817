"""Trajectory controller: a joint_trajectory_controller with position commands, one step at a time.

It does in every physics step what the controller of ros2_controllers does in every update
(joint_trajectory_controller.cpp), with `command_interfaces: [position]` and `state_interfaces:
[position, velocity]`: it samples what should be now, compares it with what is measured, and
commands what should be one step on. No joint is wrapped around.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.tolerances import Tolerances, is_within
from grpo_ros.deployment.simulation.trajectory_follower import (
    SECOND_NS,
    Array,
    Motion,
    TrajectoryFollower,
    Waypoints,
)

SUCCESSFUL, INVALID_GOAL = 0, -1
PATH_TOLERANCE_VIOLATED, GOAL_TOLERANCE_VIOLATED = -4, -5
"""Error codes of control_msgs/action/FollowJointTrajectory."""


@dataclasses.dataclass(frozen=True)
class GoalEnd:
    """How an action's goal ended.

    Attributes:
        status: of the goal.
        code: error code of its result.
        text: error string of its result.
    """

    status: Literal["succeeded", "aborted", "canceled"]
    code: int = SUCCESSFUL
    text: str = ""


PREEMPTED = GoalEnd("canceled", INVALID_GOAL, "Current goal cancelled due to new incoming action.")
DEACTIVATED = GoalEnd(
    "aborted", INVALID_GOAL, "Current goal cancelled during deactivate transition."
)
CANCELED = GoalEnd("canceled")
REACHED = GoalEnd("succeeded", SUCCESSFUL, "Goal successfully reached!")
PATH_VIOLATED = GoalEnd(
    "aborted", PATH_TOLERANCE_VIOLATED, "Aborted due to path tolerance violation"
)


class TrajectoryController:
    """Follows the last trajectory that it was given, and judges the goal that is active.

    Args:
        joints: J names.
        settings: parameters.
        position: (J,) where the joints are.

    Attributes:
        tolerances: that hold at present: those of the last goal, as in the controller of
            ros2_controllers, also for trajectories that come by topic after it.
        has_goal: whether an action's goal is active.
        time_ns: of the last update. reference: what should be then. feedback: what was measured.
        error: (J,) reference less feedback. output: (J,) what is commanded.
        complaint: why the last update began to hold without a goal; empty if it did not.
    """

    def __init__(
        self, joints: tuple[str, ...], settings: ControllerSettings, position: Array
    ) -> None:
        self.joints, self.settings = joints, settings
        self.default_tolerances = Tolerances.of(settings, len(joints))
        self.tolerances, self.has_goal = self.default_tolerances, False
        self.time_ns = 0
        self.activate(position)

    def activate(self, position: Array) -> None:
        """Stand at a position (J,) that is measured and commanded; nothing is followed."""
        self.output = np.array(position, dtype=np.float64)
        still = np.zeros_like(self.output)
        self._follower = TrajectoryFollower(self.output)
        self._pending: Waypoints | None = None
        self._is_holding, self.complaint = True, ""
        self._last, self._last_ns = Motion(self.output, still, still), 0
        self.reference, self.error = self._last, still
        self.feedback = Motion(self.output, still)

    def deactivate(self) -> GoalEnd | None:
        """Follow nothing any more; return how the active goal ended, if there was one."""
        return self._ended(DEACTIVATED)

    def command(self, way: Waypoints) -> None:
        """Follow a trajectory that came by topic.

        A goal that is active stays so, and is judged by the new trajectory from now on.
        """
        self._pending, self._is_holding = way, False

    def begin_goal(self, way: Waypoints, tolerances: Tolerances) -> GoalEnd | None:
        """Follow a goal's trajectory; return how the goal before it ended, if one was active."""
        before = self._ended(PREEMPTED)
        self.command(way)
        self.tolerances, self.has_goal = tolerances, True
        return before

    def cancel_goal(self) -> GoalEnd | None:
        """End the active goal and hold the measured position."""
        end = self._ended(CANCELED)
        if end is not None:
            self._hold(Motion(self.feedback.position))
        return end

    def update(self, now_ns: int, step_ns: int, measured: Motion) -> GoalEnd | None:
        """Decide on the command of the next step; return how the active goal ended, if it did."""
        is_first = self._pending is not None
        if self._pending is not None:
            self._adopt(self._pending, now_ns, measured)
        follower, self.complaint = self._follower, ""
        self.reference = follower.sample(now_ns)
        self.observe(now_ns, measured)
        command = follower.sample(now_ns + step_ns)
        is_over = follower.has_ended(now_ns + step_ns)
        is_off = self._is_off(is_over, is_first)
        is_missed = is_over and not self._is_holding and not self._is_at_goal()
        late_s = (now_ns - follower.end_ns) / SECOND_NS
        is_late = is_missed and 0.0 < self.tolerances.goal_time_s < late_s
        if not (is_off or is_late):
            self.output, self._last, self._last_ns = command.position, command, now_ns
        if is_off:
            self._hold(Motion(measured.position))
            return self._ended_or_complain(PATH_VIOLATED)
        if is_late:
            self._hold(Motion(measured.position))
            text = f"Aborted due to goal_time_tolerance exceeding by {late_s:.6f} seconds"
            return self._ended_or_complain(GoalEnd("aborted", GOAL_TOLERANCE_VIOLATED, text))
        if self.has_goal and is_over and not is_missed:
            self._hold(follower.end)
            return self._ended(REACHED)
        return None

    def observe(self, now_ns: int, measured: Motion) -> None:
        """Compare what is measured with what should be."""
        self.time_ns, self.feedback = now_ns, measured
        self.error = self.reference.position - measured.position

    def _is_off(self, is_over: bool, is_first: bool) -> bool:
        """Whether a joint is off the way; the first sample counts even where it is the last."""
        if self._is_holding or (is_over and not is_first):
            return False
        return not is_within(self.error, self.tolerances.path)

    def _is_at_goal(self) -> bool:
        return is_within(self.error, self.tolerances.goal)

    def _adopt(self, way: Waypoints, now_ns: int, measured: Motion) -> None:
        """Begin with what came since the last update."""
        if self.settings.interpolate_from_desired_state:
            self._follower.follow(way, now_ns, self._last, self._last_ns or now_ns)
        else:
            self._follower.follow(way, now_ns, measured, now_ns)
        self._pending = None

    def _hold(self, motion: Motion) -> None:
        """Stand at a motion's position from the next update on; nothing is judged then."""
        self._pending, self._is_holding = Waypoints(0, (0,), (motion,)), True

    def _ended_or_complain(self, end: GoalEnd) -> GoalEnd | None:
        if not self.has_goal:
            self.complaint = end.text.replace("Aborted", "Holding position")
        return self._ended(end)

    def _ended(self, end: GoalEnd) -> GoalEnd | None:
        """End the active goal, if there is one."""
        had_goal, self.has_goal = self.has_goal, False
        return end if had_goal else None
