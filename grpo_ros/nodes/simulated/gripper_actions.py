"""The gripper of a simulated robot: GripperCommand or ParallelGripperCommand."""

from __future__ import annotations

import math
from typing import Any

from control_msgs.action import GripperCommand, ParallelGripperCommand
from rclpy.action import CancelResponse, GoalResponse

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.nodes.shared.action_goals import ActiveGoal, run, serve


class GripperActions:
    """The gripper's action server, of the type that the robot's YAML names; none without gripper.

    The force is the gripper's own: as a controller without a max_effort_interface, it knows no
    other. A goal's position beyond the gripper's stops is not refused; it is never reached.

    Args:
        node: that offers it.
        sim: that carries goals out.
        lock_step: whether nothing moves outside an episode, so that no goal would end there.
    """

    def __init__(self, node: Any, sim: SimulatedRobot, lock_step: bool) -> None:
        self.node, self.sim, self.lock_step = node, sim, lock_step
        self._goal = ActiveGoal()
        interfaces = sim.robot.interfaces
        self._is_parallel = interfaces.gripper_command == "parallel_gripper_command"
        kind: Any = ParallelGripperCommand if self._is_parallel else GripperCommand
        self._type = kind
        if sim.robot.driver_gripper is None or not interfaces.gripper_action:
            return
        self._driver = sim.robot.driver_gripper
        name = interfaces.gripper_action
        self._server = serve(node, kind, name, run, self._cancel, self._judge, self._accept)

    def update(self) -> None:
        """End the goal if it is reached or has stalled, or if the episode is over."""
        if self._goal.handle is None:
            return
        if self.sim.phase == "finished":
            self.forget("the episode has ended")
            return
        sim = self.sim
        how = sim.gripper.check(sim.time_ns, sim.gripper_position, sim.gripper_speed)
        if how is None:
            return
        is_success = how == "reached" or sim.settings.gripper_allow_stalling
        self._goal.end("succeeded" if is_success else "aborted", self._result(how))

    def forget(self, why: str) -> None:
        """Abort the active goal, as the arm's is."""
        if self._goal.handle is not None:
            self.node.get_logger().info(f"gripper goal aborted: {why}")
        self._goal.end("aborted", self._type.Result())

    def _judge(self, goal: Any) -> GoalResponse:
        problem = self._problem(goal)
        if problem:
            self.node.get_logger().error(f"gripper goal refused: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _problem(self, goal: Any) -> str:
        if self.lock_step and self.sim.phase != "running":
            return f"the episode is {self.sim.phase}; call ~/reset first"
        command = goal.command
        if not self._is_parallel:
            numbers = [command.position, command.max_effort]
        elif len(command.position) != 1:
            return f"{len(command.position)} positions, expected 1"
        else:
            numbers = [*command.position, *command.velocity, *command.effort]
        return "" if all(map(math.isfinite, numbers)) else f"{numbers} are not finite"

    def _accept(self, handle: Any) -> None:
        self._goal.end("canceled", self._type.Result())
        position = handle.request.command.position
        asked = position[0] if self._is_parallel else position
        self.sim.command_gripper(self._driver.from_driver(asked))
        self._goal.begin(handle)

    def _cancel(self, handle: Any) -> CancelResponse:
        if handle is self._goal.handle:
            self.sim.command_gripper(self.sim.gripper_position)
            self._goal.end("canceled", self._type.Result())
        return CancelResponse.ACCEPT

    def _result(self, how: str) -> Any:
        result = self._type.Result()
        position = self._driver.to_driver(self.sim.gripper_position)
        if self._is_parallel:
            result.state.position, result.state.effort = [position], [0.0]
        else:
            result.position = position
            result.effort = self._goal.handle.request.command.max_effort
        result.reached_goal, result.stalled = how == "reached", how == "stalled"
        return result
