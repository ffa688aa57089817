"""Sends a gripper's goals, and keeps the arm's targets back until they may follow."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from typing import Any

from control_msgs.action import GripperCommand, ParallelGripperCommand
from rclpy.action import ActionClient

from grpo_ros.deployment.answers import Command, GripperTarget
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.recording.noting import OnMessage, type_name
from grpo_ros.nodes.serving.command_output import CommandOutput
from grpo_ros.nodes.serving.command_stream import Stream
from grpo_ros.robots.robot import Robot

ANSWER_S = 2.0
"""Longest wait for a goal's acceptance."""


class GripperCommander:
    """A client of a GripperCommand or ParallelGripperCommand action.

    Args:
        node: that owns the client.
        robot: names the action, its type and the gripper's joint.
        lock_step: whether the arm's targets wait until the goal is accepted.
        send: sends a command's arm targets.
        refuse: called with what went wrong.
        on_message: is shown the command of each goal.

    Raises:
        ConfigurationError: the robot's YAML names no action.
    """

    def __init__(
        self,
        node: Any,
        robot: Robot,
        lock_step: bool,
        send: Callable[[Command], None],
        refuse: Callable[[str], None],
        on_message: OnMessage | None = None,
    ) -> None:
        assert robot.driver_gripper is not None
        self.name, self.lock_step = robot.interfaces.gripper_action, lock_step
        if not self.name:
            raise ConfigurationError(
                f"robot '{robot.name}' has no action for its gripper, which the policy commands",
                expected="interfaces.gripper_action in its robot.yaml",
                remedy="name it, or command the gripper with the arm: command joint_command",
            )
        self._send, self._refuse, self._driver = send, refuse, robot.driver_gripper
        self._is_parallel = robot.interfaces.gripper_command == "parallel_gripper_command"
        kind = ParallelGripperCommand if self._is_parallel else GripperCommand
        self._client = ActionClient(node, kind, self.name)
        self._noted = f"{node.resolve_topic_name(self.name)}/goal"
        self._on_message = on_message
        self._pending: tuple[Command, float] | None = None

    def problem(self) -> str:
        """Return what keeps it from being used now; empty if nothing does."""
        return "" if self._client.server_is_ready() else f"no gripper action '{self.name}'"

    def submit(self, command: Command) -> None:
        """Send a command's gripper goal, and its arm targets when it is their turn."""
        assert command.gripper is not None
        if self.problem():
            self._refuse(self.problem())
            return
        self._pending = command, time.monotonic()
        goal = self._goal(command.gripper)
        if self._on_message is not None:
            self._on_message(self._noted, type_name(type(goal.command)), goal.command)
        answer = self._client.send_goal_async(goal)
        answer.add_done_callback(lambda future: self._on_answer(command, future))
        if not self.lock_step:
            self._send(command)

    def forget(self) -> None:
        """Let nothing wait any more: the policy was stopped."""
        self._pending = None

    def check_deadline(self) -> None:
        """Complain where a goal was not answered in time."""
        if self._pending is not None and time.monotonic() - self._pending[1] > ANSWER_S:
            self._pending = None
            self._refuse(f"the gripper did not answer within {ANSWER_S:g} s")

    def destroy(self) -> None:
        """Free the client."""
        self._pending = None
        self._client.destroy()

    def _goal(self, target: GripperTarget) -> Any:
        position = self._driver.to_driver(target.position)
        if not self._is_parallel:
            goal = GripperCommand.Goal()
            goal.command.position, goal.command.max_effort = position, target.max_effort
            return goal
        goal = ParallelGripperCommand.Goal()
        goal.command.name = [self._driver.driver_joint]
        goal.command.position = array("d", [position])
        goal.command.effort = array("d", [target.max_effort])
        return goal

    def _on_answer(self, command: Command, future: Any) -> None:
        if self._pending is None or self._pending[0] is not command:
            return  # stopped since, or another goal has followed
        self._pending = None
        handle = future.result()
        if handle is None or not handle.accepted:
            self._refuse("the gripper refused its goal")
        elif self.lock_step:
            self._send(command)


class StreamedGripper:
    """Lets the gripper's driver joint go along with the arm's, as Isaac Sim takes it.

    Args:
        stream: of joint commands.
        robot: names the joint.
        send: sends a command's arm targets.
    """

    def __init__(self, stream: Stream, robot: Robot, send: Callable[[Command], None]) -> None:
        assert robot.gripper is not None
        self._stream, self._joint, self._send = stream, robot.gripper.joint, send

    def problem(self) -> str:
        """Nothing: the stream itself says whether anybody listens."""
        return ""

    def submit(self, command: Command) -> None:
        """Send a command's gripper position with its arm targets."""
        assert command.gripper is not None
        self._stream.beside[self._joint] = command.gripper.position
        self._send(command)

    def forget(self) -> None:
        """Nothing waits: the gripper stays where it was told to be."""

    def check_deadline(self) -> None:
        """Nothing is answered, so nothing is late."""

    def destroy(self) -> None:
        """Nothing was made."""


def make_gripper(
    node: Any,
    robot: Robot,
    output: CommandOutput,
    lock_step: bool,
    send: Callable[[Command], None],
    refuse: Callable[[str], None],
    on_message: OnMessage | None = None,
) -> GripperCommander | StreamedGripper:
    """Return what sends the gripper's commands beside an output; see the classes."""
    if isinstance(output, Stream) and output.kind == "joint_command":
        return StreamedGripper(output, robot, send)
    return GripperCommander(node, robot, lock_step, send, refuse, on_message)
