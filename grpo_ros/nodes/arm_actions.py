"""The action interfaces of a simulated robot: joint trajectory and gripper."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from control_msgs.action import FollowJointTrajectory, GripperCommand
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.task import Future
from trajectory_msgs.msg import JointTrajectory

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.nodes import messages
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]
GRIPPER_TOLERANCE_M = 0.002
GRIPPER_STALL_M_S = 0.002
GRIPPER_STALL_S = 0.2
"""A gripper that moves slower than this for so long has stalled, e.g. on an object."""
RESULT_TIMEOUT_S = 2
REACHED, STALLED, REPLACED, FORGOTTEN = "reached", "stalled", "replaced", "forgotten"


class ArmActions:
    """Action servers of a node that drives a `SimulatedRobot`.

    A new command replaces the one before. Execution ends in `update`, which the node calls
    whenever simulated time has passed.

    Args:
        node: that offers the actions.
        sim: that carries them out.
        robot: names them.
        lock_step: arm goals are refused then, since commands are stamped there.
    """

    def __init__(self, node: Any, sim: SimulatedRobot, robot: Robot, lock_step: bool) -> None:
        self.node, self.sim, self.robot, self.lock_step = node, sim, robot, lock_step
        self._arm: Future | None = None
        self._gripper: Future | None = None
        self._still_since_ns: int | None = None
        interfaces = robot.interfaces
        self._servers = [
            ActionServer(
                node,
                FollowJointTrajectory,
                interfaces.arm_trajectory_action,
                self._run_arm,
                goal_callback=self._judge_arm,
                handle_accepted_callback=self._accept_arm,
                cancel_callback=self._cancel_arm,
                result_timeout=RESULT_TIMEOUT_S,
            )
        ]
        if robot.gripper is not None and interfaces.gripper_action:
            self._servers.append(
                ActionServer(
                    node,
                    GripperCommand,
                    interfaces.gripper_action,
                    self._run_gripper,
                    goal_callback=self._judge_gripper,
                    handle_accepted_callback=self._accept_gripper,
                    cancel_callback=self._cancel_gripper,
                    result_timeout=RESULT_TIMEOUT_S,
                )
            )

    def update(self) -> None:
        """End what has been reached by now; after an episode's end nothing moves any more."""
        if self.sim.phase == "finished":
            self.forget()
        if self._arm is not None and self.sim.is_arm_done():
            self._arm = self._end(self._arm, REACHED)
        if self._gripper is None:
            return
        if abs(self.sim.gripper_position - self.sim.gripper_target) < GRIPPER_TOLERANCE_M:
            self._gripper = self._end(self._gripper, REACHED)
        elif self.sim.gripper_speed > GRIPPER_STALL_M_S or self._still_since_ns is None:
            self._still_since_ns = self.sim.time_ns
        elif self.sim.time_ns - self._still_since_ns > GRIPPER_STALL_S * messages.NANOSECONDS:
            self._gripper = self._end(self._gripper, STALLED)

    def forget(self) -> None:
        """End everything: the robot was reset, or its episode has ended."""
        self._arm = self._end(self._arm, FORGOTTEN)
        self._gripper = self._end(self._gripper, FORGOTTEN)

    def preempt_arm(self) -> None:
        """End the arm's goal: another command replaces it."""
        self._arm = self._end(self._arm, REPLACED)

    def arm_points(self, message: JointTrajectory) -> tuple[Array, list[int]]:
        """Return a trajectory's positions in the arm's joint order, and its times, ns.

        Raises:
            ValueError: other joints, or points that are not sound.
        """
        names = list(message.joint_names)
        if sorted(names) != sorted(self.sim.arm_joints):
            raise ValueError(f"joints {names}, expected {list(self.sim.arm_joints)}")
        points, times = messages.trajectory_points(message)
        return points[:, [names.index(name) for name in self.sim.arm_joints]], times

    # ---------------------------------------------------------------- arm

    def _judge_arm(self, goal: FollowJointTrajectory.Goal) -> GoalResponse:
        try:
            if self.lock_step:
                raise ValueError("lock step takes stamped trajectories on the topic only")
            points, _ = self.arm_points(goal.trajectory)
            if len(points) == 0:
                raise ValueError("no points")
        except ValueError as problem:
            self.node.get_logger().warning(f"arm goal refused: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accept_arm(self, handle: Any) -> None:
        self.preempt_arm()
        points, times = self.arm_points(handle.request.trajectory)
        start_ns = messages.to_ns(handle.request.trajectory.header.stamp)
        self._arm = Future()
        handle.ended = self._arm
        if not self.sim.follow(start_ns, times, points):
            self._arm = self._end(self._arm, REACHED)
        handle.execute()

    def _cancel_arm(self, _: Any) -> CancelResponse:
        self.sim.hold_arm()
        self._arm = self._end(self._arm, REPLACED)
        return CancelResponse.ACCEPT

    async def _run_arm(self, handle: Any) -> FollowJointTrajectory.Result:
        result = FollowJointTrajectory.Result()
        how = await handle.ended
        if handle.is_cancel_requested:
            handle.canceled()
        elif how == REACHED:
            handle.succeed()
        else:
            result.error_string = str(how)
            handle.abort()
        return result

    # ---------------------------------------------------------------- gripper

    def _judge_gripper(self, goal: GripperCommand.Goal) -> GoalResponse:
        gripper = self.robot.gripper
        assert gripper is not None
        low, high = sorted((gripper.closed_position_m, gripper.open_position_m))
        position = goal.command.position
        if not low <= position <= high or not goal.command.max_effort >= 0.0:
            self.node.get_logger().warning(
                f"gripper goal {position} m refused, expected [{low}, {high}] m"
            )
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accept_gripper(self, handle: Any) -> None:
        self._gripper = self._end(self._gripper, REPLACED)
        self._gripper, self._still_since_ns = Future(), None
        handle.ended = self._gripper
        self.sim.command_gripper(handle.request.command.position)
        handle.execute()

    def _cancel_gripper(self, _: Any) -> CancelResponse:
        self.sim.command_gripper(self.sim.gripper_position)
        self._gripper = self._end(self._gripper, REPLACED)
        return CancelResponse.ACCEPT

    async def _run_gripper(self, handle: Any) -> GripperCommand.Result:
        how = await handle.ended
        result = GripperCommand.Result()
        result.position = self.sim.gripper_position
        result.reached_goal, result.stalled = how == REACHED, how == STALLED
        if handle.is_cancel_requested:
            handle.canceled()
        elif how in (REACHED, STALLED):
            handle.succeed()
        else:
            handle.abort()
        return result

    @staticmethod
    def _end(ended: Future | None, how: str) -> None:
        if ended is not None and not ended.done():
            ended.set_result(how)
