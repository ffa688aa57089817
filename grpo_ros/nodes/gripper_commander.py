"""Sends a policy's gripper commands as goals, in the right order with the arm's targets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from control_msgs.action import GripperCommand
from rclpy.action import ActionClient

from grpo_ros.deployment.policy_runner import Command

ANSWER_S = 2.0
"""Lock step: longest wait for a goal's acceptance."""


class GripperCommander:
    """A client of a GripperCommand action.

    Args:
        node: that owns the client.
        name: of the action.
        lock_step: whether the arm's targets wait until the goal is accepted.
        send: sends a command's arm targets.
        refuse: called with what went wrong.
    """

    def __init__(
        self,
        node: Any,
        name: str,
        lock_step: bool,
        send: Callable[[Command], None],
        refuse: Callable[[str], None],
    ) -> None:
        self.name, self.lock_step, self._send, self._refuse = name, lock_step, send, refuse
        self._client = ActionClient(node, GripperCommand, name)
        self._pending: tuple[Command, float] | None = None

    def submit(self, command: Command) -> None:
        """Send a command's gripper goal, and its arm targets when it is their turn."""
        assert command.gripper is not None
        if not self._client.server_is_ready():
            self._refuse(f"no gripper action '{self.name}'")
            return
        goal = GripperCommand.Goal()
        goal.command.position = command.gripper.position
        goal.command.max_effort = command.gripper.max_effort
        answer = self._client.send_goal_async(goal)
        answer.add_done_callback(lambda future: self._on_answer(command, future))
        if self.lock_step:
            self._pending = command, time.monotonic()
        else:
            self._send(command)

    def forget(self) -> None:
        """Let nothing wait any more: the policy was stopped."""
        self._pending = None

    def check_deadline(self) -> None:
        """Complain where a goal was not answered in time."""
        if self._pending is not None and time.monotonic() - self._pending[1] > ANSWER_S:
            self._refuse(f"the gripper did not answer within {ANSWER_S:g} s")

    def destroy(self) -> None:
        """Free the client."""
        self._client.destroy()

    def _on_answer(self, command: Command, future: Any) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self._refuse("the gripper refused its goal")
        elif self._pending is not None and self._pending[0] is command:
            self._pending = None
            self._send(command)
