"""What carries a motion to the robot: one class per standard interface.

Each is given what the safety gate let through and nothing else. `send` is called once per control
period; between two calls, streams follow the motion's curve by themselves.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import rclpy.clock
from action_msgs.msg import GoalStatus
from control_msgs.action import FollowJointTrajectory
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.action import ActionClient
from rclpy.clock import ClockType
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from grpo_ros.deployment.answers import Motion
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.recording.noting import OnMessage
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.robots.robot import Robot

LONGEST_STOP_S = 2.0
TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
GOAL, MOTION = "/goal", "/motion"
"""Added to the name of an action or a stream: the trajectories behind it, as they are noted."""
STREAMS = ("position_stream", "velocity_stream", "joint_command", "twist", "twist_stamped")


class CommandOutput(Protocol):
    """Sends motions over one interface."""

    name: str
    type_name: str

    def problem(self) -> str:
        """Return what keeps it from being used now; empty if nothing does."""

    def send(self, motion: Motion) -> None:
        """Send a motion."""

    def finish(self) -> None:
        """Bring the robot to rest where the interface does not do so by itself."""

    def stand(self) -> None:
        """Go on no further along what was sent: its times are not those of the clock any more."""

    def destroy(self) -> None:
        """Free what was made."""


def make_output(
    node: Any,
    robot: Robot,
    kind: str,
    *,
    lock_step: bool,
    period_s: float,
    rate_hz: float,
    on_failure: Callable[[str], None],
    on_message: OnMessage | None = None,
) -> CommandOutput:
    """Return the output of a kind; see `robots.robot.ArmCommand`.

    Args:
        node: a lifecycle node that is active when it sends.
        robot: whose names are used.
        kind: of the interface.
        lock_step: one stamped command per control period, as the simulator bridge takes it.
        period_s: of the control.
        rate_hz: of streams.
        on_failure: called with what the robot refused.
        on_message: is shown every message that is sent, and the motions behind streams.

    Raises:
        ConfigurationError: the robot's YAML has no name for this interface.
    """
    name = command_name(robot, kind)
    if not name:
        raise ConfigurationError(
            f"robot '{robot.name}' has no name for command '{kind}'",
            expected="interfaces of its robot.yaml that name the topic or action",
        )
    if lock_step and kind not in ("trajectory_topic", "twist", "twist_stamped"):
        raise ConfigurationError(
            f"command '{kind}' with lock_step",
            expected="trajectory_topic, or a base's twist: others carry no stamps",
        )
    if kind == "trajectory_action":
        return TrajectoryAction(node, name, on_failure, on_message)
    if kind == "trajectory_topic":
        return TrajectoryTopic(node, name, period_s if lock_step else None, on_message)
    return Stream(node, name, kind, None if lock_step else rate_hz, on_message)


def command_name(robot: Robot, kind: str) -> str:
    """Return the topic or action of a kind of command; empty where the robot's YAML has none."""
    names = robot.interfaces
    return {
        "trajectory_topic": names.arm_trajectory_topic,
        "trajectory_action": names.arm_trajectory_action,
        "position_stream": names.arm_stream_topic,
        "velocity_stream": names.arm_stream_topic,
        "joint_command": names.arm_joint_command,
        "twist": names.cmd_vel,
        "twist_stamped": names.cmd_vel,
    }[kind]


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
        self._on_message = on_message or _pass_over
        self._period_ns = (
            None if lock_step_s is None else round(lock_step_s * messages.NANOSECONDS)
        )
        self._publisher = node.create_lifecycle_publisher(JointTrajectory, name, qos.COMMAND)

    def problem(self) -> str:
        """See CommandOutput."""
        return _publisher_problem(self.node, self.name, self.type_name)

    def send(self, motion: Motion) -> None:
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
        self._on_failure, self._on_message = on_failure, on_message or _pass_over
        self._client = ActionClient(node, FollowJointTrajectory, name)
        self._number = 0

    def problem(self) -> str:
        """See CommandOutput."""
        if not self._client.server_is_ready():
            return f"no action server '{self.name}' ({self.type_name})"
        return ""

    def send(self, motion: Motion) -> None:
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


class Stream:
    """Publishes samples of the motion at a rate of its own.

    A stream that ends leaves the robot at its last sample: position commands hold there, velocity
    commands go on until the driver's own watchdog stops them.

    Args:
        node: that publishes. name: of the topic.
        kind: what the samples are.
        rate_hz: None: in lock step, one sample per motion.
        on_message: is shown each sample, and each motion as a trajectory.
    """

    def __init__(
        self,
        node: Any,
        name: str,
        kind: str,
        rate_hz: float | None,
        on_message: OnMessage | None = None,
    ) -> None:
        self.node, self.kind, self.name = node, kind, node.resolve_topic_name(name)
        self._on_message = on_message or _pass_over
        message = {"joint_command": JointState, "twist": Twist, "twist_stamped": TwistStamped}.get(
            kind, Float64MultiArray
        )
        self.type_name = f"{message.__module__.split('.')[0]}/msg/{message.__name__}"
        self._publisher = node.create_lifecycle_publisher(message, name, qos.COMMAND)
        self.beside: dict[str, float] = {}
        """joint_command: positions of joints that go along with the arm's, as a gripper's."""
        self._motion: Motion | None = None
        self._late_s = self._sent_s = 0.0
        self._position: Any = None
        self._rate_hz = rate_hz
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = (
            None if rate_hz is None else node.create_timer(1.0 / rate_hz, self._tick, clock=wall)
        )

    def problem(self) -> str:
        """See CommandOutput."""
        return _publisher_problem(self.node, self.name, self.type_name)

    def send(self, motion: Motion) -> None:
        """See CommandOutput."""
        if motion.curve is not None:
            make = functools.partial(as_trajectory, motion)
            self._on_message(self.name + MOTION, TRAJECTORY, make)
        if self._rate_hz is None and len(motion.points):
            self._publish(motion.names, motion.points[0], motion.points[0], motion.stamp_ns)
        elif motion.curve is not None:
            late_s = (self._now_ns() - motion.stamp_ns) / messages.NANOSECONDS
            self._late_s, self._sent_s = max(0.0, late_s), time.monotonic()
            self._motion = motion
            self._tick()

    def finish(self) -> None:
        """Play the motion to its end, which takes as long as braking does.

        Simulated time stands still meanwhile, since this is the thread that hears of it.
        """
        motion, began_s = self._motion, time.monotonic()
        if motion is None:
            return
        now_ns, elapsed_s = self._now_ns(), self._elapsed_s(motion)
        played_s = 0.0
        while self._motion is not None and elapsed_s >= 0.0 and played_s < LONGEST_STOP_S:
            self._sample(
                motion, elapsed_s + played_s, now_ns + round(played_s * messages.NANOSECONDS)
            )
            time.sleep(1.0 / (self._rate_hz or 100.0))
            played_s = time.monotonic() - began_s
        self.stand()

    def stand(self) -> None:
        """Send rest where the last sample led, unless the motion has ended."""
        motion, self._motion = self._motion, None
        if motion is not None and motion.curve is not None:
            position = motion.curve.positions[0] if self._position is None else self._position
            self._publish(motion.names, position, np.zeros_like(position), self._now_ns())

    def destroy(self) -> None:
        """See CommandOutput."""
        if self._timer is not None:
            self.node.destroy_timer(self._timer)
        self.node.destroy_lifecycle_publisher(self._publisher)

    def _tick(self) -> None:
        if self._motion is None:
            return
        elapsed_s = self._elapsed_s(self._motion)
        if elapsed_s < 0.0:
            self.stand()
        else:
            self._sample(self._motion, elapsed_s, self._now_ns())

    def _sample(self, motion: Motion, elapsed_s: float, now_ns: int) -> None:
        assert motion.curve is not None, "only motions with a curve are kept"
        self._position, velocity = motion.curve.sample(elapsed_s)
        self._publish(motion.names, self._position, velocity, now_ns)
        if elapsed_s > motion.curve.end_s:
            self._motion = None

    def _now_ns(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def _elapsed_s(self, motion: Motion) -> float:
        """Return the time since a motion began; negative where simulated time jumped back.

        The wall clock may be set at any moment, so real time is that of the steady one.
        """
        if self.node.get_clock().ros_time_is_active:
            return (self._now_ns() - motion.stamp_ns) / messages.NANOSECONDS
        return self._late_s + time.monotonic() - self._sent_s

    def _publish(
        self, names: tuple[str, ...], position: Any, velocity: Any, stamp_ns: int
    ) -> None:
        match self.kind:
            case "position_stream":
                message = Float64MultiArray(data=messages.to_doubles(position))
            case "velocity_stream":
                message = Float64MultiArray(data=messages.to_doubles(velocity))
            case "joint_command":
                still = [0.0] * len(self.beside)
                message = messages.joint_state(
                    stamp_ns,
                    [*names, *self.beside],
                    [*position, *self.beside.values()],
                    [*velocity, *still],
                )
            case "twist":
                message = messages.twist(velocity)
            case _:
                message = TwistStamped(twist=messages.twist(velocity))
                message.header.stamp = messages.to_time(stamp_ns)
        self._publisher.publish(message)
        self._on_message(self.name, self.type_name, message)


def _pass_over(topic: str, type_name: str, message: Any) -> None:
    """Nobody keeps a record."""


def _publisher_problem(node: Any, name: str, type_name: str) -> str:
    """Say whether nobody listens, somebody expects another type, or somebody else sends."""
    listeners = node.get_subscriptions_info_by_topic(name)
    if not listeners:
        return f"nobody listens to '{name}' ({type_name})"
    others = {info.topic_type for info in listeners} - {type_name}
    if others == {info.topic_type for info in listeners}:
        return f"'{name}' is listened to as {', '.join(sorted(others))}, not as {type_name}"
    senders = node.get_publishers_info_by_topic(name)
    if len(senders) > 1:
        mine = (node.get_name(), node.get_namespace())
        found = sorted(
            {
                f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                for info in senders
                if (info.node_name, info.node_namespace) != mine
            }
        ) or ["another node of this name"]
        return f"{', '.join(found)} publishes on '{name}' too"
    return ""
