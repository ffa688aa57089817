"""Trajectories to a joint_trajectory_controller: over its topic, or its action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from action_msgs.msg import GoalStatus
from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionClient
from trajectory_msgs.msg import JointTrajectory

from grpo_ros.deployment.answers import Motion
from grpo_ros.nodes.recording.noting import OnMessage, pass_over
from grpo_ros.nodes.serving.listeners import publisher_problem
from grpo_ros.nodes.shared import messages, qos

TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
GOAL = "/goal"
"""Added to the name of an action: its goals' trajectories, as they are noted."""


def as_trajectory(motion: Motion, period_ns: int | None = None) -> JointTrajectory | None:
    """Return a motion as it is sent.

    Args:
        motion: that the gate let through.
        period_ns: in lock step, of the control: points are its targets; None: the curve's knots.

    Returns:
        None where there is nothing to send.
    """
    if period_ns is not None:
        return messages.trajectory(motion.stamp_ns, motion.names, motion.points, period_ns)
    if motion.curve is None:
        return None
    return messages.curve_trajectory(motion.stamp_ns, motion.names, motion.curve)


class TrajectoryTopic:
    """Publishes JointTrajectory to a joint_trajectory_controller.

    The first point is the knot at the message's own stamp, so the controller goes on exactly
    where the motion sent before stands, whatever it measures.

    Args:
        node: that publishes. name: of the topic.
        lock_step_s: control period, where points are its targets; None: the curve's knots.
        on_message: is shown what is sent.
    """

    type_name = TRAJECTORY

    def __init__(
        self,
        node: Any,
        name: str,
        lock_step_s: float | None,
        on_message: OnMessage | None = None,
    ) -> None:
        self.node, self.name = node, node.resolve_topic_name(name)
        self._on_message = on_message or pass_over
        self._period_ns = (
            None if lock_step_s is None else round(lock_step_s * messages.NANOSECONDS)
        )
        self._publisher = node.create_lifecycle_publisher(JointTrajectory, name, qos.COMMAND)

    def problem(self) -> str:
        """See CommandOutput."""
        return publisher_problem(self.node, self.name, self.type_name)

    def send(self, motion: Motion, began_s: float) -> None:
        """See CommandOutput."""
        message = as_trajectory(motion, self._period_ns)
        if message is not None:
            self._publisher.publish(message)
            self._on_message(self.name, self.type_name, message)

    def finish(self) -> None:
        """Nothing: what was sent ends at rest."""

    def stand(self) -> None:
        """Nothing: a stock controller goes to the end of what was sent on a clock of its own."""

    def destroy(self) -> None:
        """See CommandOutput."""
        self.node.destroy_lifecycle_publisher(self._publisher)


class TrajectoryAction:
    """Sends FollowJointTrajectory goals: one whenever the motion changes."""

    type_name = "control_msgs/action/FollowJointTrajectory"

    def __init__(
        self,
        node: Any,
        name: str,
        on_failure: Callable[[str], None],
        on_message: OnMessage | None = None,
    ) -> None:
        self.node, self.name = node, node.resolve_topic_name(name)
        self._on_failure, self._on_message = on_failure, on_message or pass_over
        self._client = ActionClient(node, FollowJointTrajectory, name)
        self._number = 0

    def problem(self) -> str:
        """See CommandOutput."""
        if not self._client.server_is_ready():
            return f"no action server '{self.name}' ({self.type_name})"
        return ""

    def send(self, motion: Motion, began_s: float) -> None:
        """See CommandOutput."""
        trajectory = None if motion.is_known else as_trajectory(motion)
        if trajectory is None:
            return
        self._number += 1
        number = self._number
        goal = FollowJointTrajectory.Goal()
        goal.trajectory = trajectory
        self._on_message(self.name + GOAL, TRAJECTORY, trajectory)
        sent = self._client.send_goal_async(goal)
        sent.add_done_callback(lambda future: self._on_answer(number, future))

    def finish(self) -> None:
        """Nothing: what was sent ends at rest."""

    def stand(self) -> None:
        """Nothing: a stock controller goes to the end of what was sent on a clock of its own."""

    def destroy(self) -> None:
        """See CommandOutput."""
        self._number += 1
        self._client.destroy()

    def _on_answer(self, number: int, future: Any) -> None:
        handle = future.result()
        if number != self._number:
            return
        if handle is None or not handle.accepted:
            self._on_failure(f"'{self.name}' refused a trajectory")
            return
        handle.get_result_async().add_done_callback(lambda done: self._on_end(number, done))

    def _on_end(self, number: int, future: Any) -> None:
        """A goal that another replaced ends aborted, which is no failure."""
        answer = future.result()
        if number != self._number or answer.status == GoalStatus.STATUS_SUCCEEDED:
            return
        result = answer.result
        self._on_failure(
            f"'{self.name}' ended a trajectory with error {result.error_code}: "
            f"{result.error_string or 'no reason given'}"
        )
