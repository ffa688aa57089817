"""Trajectories of a simulated arm: a joint_trajectory_controller's action and topic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from control_msgs.action import FollowJointTrajectory
from rclpy.action import CancelResponse, GoalResponse
from trajectory_msgs.msg import JointTrajectory

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.deployment.simulation.tolerances import resolve
from grpo_ros.deployment.simulation.trajectory_checks import TrajectoryRefused, check_trajectory
from grpo_ros.deployment.simulation.trajectory_controller import GoalEnd
from grpo_ros.deployment.simulation.trajectory_follower import Waypoints
from grpo_ros.nodes.shared import messages
from grpo_ros.nodes.shared.action_goals import ActiveGoal, run, serve
from grpo_ros.nodes.simulated import controller_messages

Array = npt.NDArray[np.float64]
FEEDBACK_NS = 50_000_000
"""A goal's feedback comes as often as from a controller with action_monitor_rate 20 Hz."""
THROTTLE_S = 1.0


class ArmActions:
    """What a node offers of a joint_trajectory_controller.

    Goals end in `update`, which the node calls whenever simulated time has passed.

    Args:
        node: that offers it.
        sim: that carries trajectories out.
        lock_step: goals are refused then, since commands are stamped there.
    """

    def __init__(self, node: Any, sim: SimulatedRobot, lock_step: bool) -> None:
        self.node, self.sim, self.lock_step = node, sim, lock_step
        self._goal, self._last_feedback_ns = ActiveGoal(), 0
        name = sim.robot.interfaces.arm_trajectory_action
        self._server = name and serve(
            node, FollowJointTrajectory, name, run, self._cancel, self._judge, self._accept
        )

    def update(self) -> None:
        """Send what goals are owed by now; after an episode's end nothing moves any more."""
        self._end_what_ended()
        controller = self.sim.arm.trajectories
        if controller.complaint:
            self.node.get_logger().error(controller.complaint, throttle_duration_sec=THROTTLE_S)
        if self.sim.phase == "finished":
            self.forget("the episode has ended")
        if self._goal.handle is None or self.sim.time_ns < self._last_feedback_ns + FEEDBACK_NS:
            return
        self._last_feedback_ns = self.sim.time_ns
        self._goal.handle.publish_feedback(controller_messages.feedback(controller))

    def forget(self, why: str) -> None:
        """Abort the active goal, as a controller that is deactivated does."""
        self._end_what_ended()
        end = self.sim.arm.trajectories.deactivate()
        if end is not None:
            self._end([GoalEnd(end.status, end.code, f"{end.text} ({why})")])

    def command(self, message: JointTrajectory) -> None:
        """Follow a trajectory that came by topic; one that is not sound changes nothing."""
        try:
            self.sim.arm.command(self._checked(message))
        except TrajectoryRefused as problem:
            self._complain(problem)

    def first_target(self, message: JointTrajectory) -> Array:
        """Lock step: return what one control period leads to, whatever else the message says.

        A point at the stamp itself is where the period begins, and passed over.

        Raises:
            ValueError: other joints, points that are not sound, or none after one period.
        """
        names, joints = list(message.joint_names), list(self.sim.arm_joints)
        if sorted(names) != sorted(joints):
            raise ValueError(f"joints {names}, expected {joints}")
        points, times = messages.trajectory_points(message)
        row = 1 if times[:1] == [0] else 0
        if times[row : row + 1] != [self.sim.period_ns]:
            raise ValueError(
                f"the first target is due after {times[row : row + 1]} ns, "
                f"not {self.sim.period_ns}"
            )
        return points[row, [names.index(name) for name in joints]]

    # ---------------------------------------------------------------- goals

    def _judge(self, goal: FollowJointTrajectory.Goal) -> GoalResponse:
        if self.lock_step:
            self.node.get_logger().warning(
                "arm goal refused: lock step takes stamped trajectories on the topic only"
            )
            return GoalResponse.REJECT
        try:
            self._checked(goal.trajectory)
        except TrajectoryRefused as problem:
            self._complain(problem)
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accept(self, handle: Any) -> None:
        goal, controller = handle.request, self.sim.arm.trajectories
        tolerances, problem = resolve(
            controller.default_tolerances,
            controller_messages.tolerances(goal.path_tolerance),
            controller_messages.tolerances(goal.goal_tolerance),
            messages.to_ns(goal.goal_time_tolerance) / messages.NANOSECONDS,
            controller.joints,
        )
        if problem:
            self.node.get_logger().error(f"{problem}; the parameters' tolerances hold")
        self._end_what_ended()
        before = self.sim.arm.begin_goal(self._checked(goal.trajectory), tolerances)
        if before is not None:
            self._end([before])
        self._goal.begin(handle)

    def _cancel(self, handle: Any) -> CancelResponse:
        self._end_what_ended()
        if handle is self._goal.handle:
            end = self.sim.arm.trajectories.cancel_goal()
            self._end([] if end is None else [end])
        return CancelResponse.ACCEPT

    def _end_what_ended(self) -> None:
        """End what the simulation ended: a streamed command does so between physics steps."""
        self._end(self.sim.take_goal_ends())

    def _end(self, ends: list[GoalEnd]) -> None:
        for end in ends:
            result = FollowJointTrajectory.Result(error_code=end.code, error_string=end.text)
            self._goal.end(end.status, result)
            if end.text:
                self.node.get_logger().info(f"arm goal {end.status}: {end.text}")

    # ---------------------------------------------------------------- checks

    def _checked(self, message: JointTrajectory) -> Waypoints:
        return check_trajectory(
            list(message.joint_names),
            messages.to_ns(message.header.stamp),
            controller_messages.raw_points(message),
            self.sim.arm_joints,
            self.sim.time_ns,
            self.sim.settings,
            self.sim.arm.target,
        )

    def _complain(self, problem: TrajectoryRefused) -> None:
        self.node.get_logger().error(
            f"trajectory refused, {problem.code}: {problem}", throttle_duration_sec=THROTTLE_S
        )
