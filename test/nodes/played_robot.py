"""A robot that a test plays: it obeys as a stock controller does, and fails as it is told.

It is there before the policy server is configured, publishes joints, poses and what a driver
reports, and keeps every command with its arrival.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from commanded_motion import Limits, Sent, waypoints
from geometry_msgs.msg import PoseStamped
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.trajectory_checks import TrajectoryRefused
from grpo_ros.deployment.simulation.trajectory_controller import TrajectoryController
from grpo_ros.deployment.simulation.trajectory_follower import Motion
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.robots.robot import Robot

PERIOD_S = 0.01
ENABLE_TOPIC, MODE_TOPIC = "enable", "robot_mode"
CUBE = (0.475, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0)
GOAL = (0.55, 0.1, 0.02, 0.0, 0.0, 0.0, 1.0)


class PlayedRobot:
    """Publishes at 100 Hz from a thread of its own until it is closed.

    Args:
        node: of the test. robot: that is played.
        has_clock: whether it publishes /clock and stamps by it, as a simulation does.

    Attributes:
        poses: body -> x, y, z in m and x, y, z, w.
        silent: names of what is not published: joint_states, or a body.
        alter: changes a joint state before it is published.
        enable, accepts: what the switch and the robot's mode say; None: they say nothing.
        torques: joint -> N m, reported from outside.
        sent: commands that came. is_paused: the clock stands still.
    """

    def __init__(self, node: Any, robot: Robot, has_clock: bool = False) -> None:
        self.node, self.robot = node, robot
        self.limits = Limits.of(robot.limits[: len(robot.arm_joints)])
        self.poses = {"cube": CUBE, "goal": GOAL}
        self.silent: set[str] = set()
        self.alter: Callable[[JointState], JointState] = lambda message: message
        self.enable: bool | None = None
        self.accepts: bool | None = None
        self.torques: dict[str, float] = {}
        self.is_paused = False
        self.sent: list[Sent] = []
        self.clock_ns = messages.NANOSECONDS * 100 if has_clock else None
        self._lock, self._stopping = threading.RLock(), threading.Event()
        self._last_s = time.monotonic()
        self._make_interfaces()
        self.go_home()
        self._thread = threading.Thread(target=self._run, name="played robot", daemon=True)
        self._thread.start()

    def _make_interfaces(self) -> None:
        node, names = self.node, self.robot.interfaces
        publish = node.create_publisher
        self._joints = publish(JointState, names.joint_states, qos.STATE)
        self._bodies = {
            name: publish(PoseStamped, f"objects/{name}/pose", qos.STATE) for name in self.poses
        }
        self._enable = publish(Bool, ENABLE_TOPIC, qos.STATE)
        self._mode = publish(Bool, MODE_TOPIC, qos.STATE)
        self._torque = publish(JointState, self.robot.safety.external_torque.topic, qos.STATE)
        self._made = [self._joints, *self._bodies.values(), self._enable, self._mode, self._torque]
        self._description: Any = None
        self._clock = None
        if self.clock_ns is not None:
            self._clock = publish(Clock, "/clock", qos.CLOCK)
            self._made.append(self._clock)
        self._commands = node.create_subscription(
            JointTrajectory, names.arm_trajectory_topic, self._on_command, qos.STATE
        )

    # ---------------------------------------------------------------- the test's side

    def describe(self, urdf: str) -> None:
        """Publish a robot_description, latched, in place of the one before."""
        if self._description is None:
            self._description = self.node.create_publisher(
                String, "robot_description", qos.LATCHED
            )
            self._made.append(self._description)
        self._description.publish(String(data=urdf))

    def go_home(self) -> None:
        """Stand at home, at rest, and forget what was commanded."""
        with self._lock:
            self.start = self.robot.home.numpy()[: len(self.robot.arm_joints)].copy()
            self._stand(self.start)
            self.sent = []

    def jump(self, seconds: float) -> None:
        """Let the clock jump, and the controllers begin anew where the arm is."""
        with self._lock:
            assert self.clock_ns is not None
            self.clock_ns += round(seconds * messages.NANOSECONDS)
            self._stand(self.position)

    @property
    def position(self) -> np.ndarray:
        """Where the arm's joints are (A,)."""
        with self._lock:
            return self._controller.reference.position.copy()

    @property
    def speed(self) -> float:
        """Of the fastest joint, rad/s."""
        with self._lock:
            velocity = self._controller.reference.velocity
        return 0.0 if velocity is None else float(np.abs(velocity).max())

    def now_ns(self) -> int:
        """The clock of its stamps."""
        if self.clock_ns is None:
            return int(self.node.get_clock().now().nanoseconds)
        return self.clock_ns

    def commands(self) -> list[Sent]:
        """What came so far."""
        with self._lock:
            return list(self.sent)

    def close(self) -> None:
        """Stop, and take everything from the graph."""
        self._stopping.set()
        self._thread.join(5.0)
        self.node.destroy_subscription(self._commands)
        for publisher in self._made:
            self.node.destroy_publisher(publisher)

    # ---------------------------------------------------------------- the robot's side

    def _stand(self, position: np.ndarray) -> None:
        self._controller = TrajectoryController(
            self.robot.arm_joints, ControllerSettings(), position
        )

    def _on_command(self, message: JointTrajectory) -> None:
        with self._lock:
            sent = Sent(self.now_ns(), message)
            self.sent.append(sent)
            try:
                self._controller.command(waypoints(sent, self.limits, sent.arrival_ns))
            except TrajectoryRefused as refused:
                self.node.get_logger().error(f"trajectory refused: {refused}")

    def _run(self) -> None:
        while not self._stopping.wait(PERIOD_S):
            with self._lock:
                self._step()

    def _step(self) -> None:
        now_s = time.monotonic()
        elapsed_ns = round((now_s - self._last_s) * messages.NANOSECONDS)
        self._last_s = now_s
        if self.clock_ns is not None and not self.is_paused:
            self.clock_ns += elapsed_ns
        stamp = self.now_ns()
        controller = self._controller
        measured = Motion(controller.output, controller.reference.velocity)
        if not self.is_paused:
            controller.update(stamp, round(PERIOD_S * messages.NANOSECONDS), measured)
        self._publish(stamp)

    def _publish(self, stamp: int) -> None:
        for name, publisher in self._bodies.items():
            if name not in self.silent:
                publisher.publish(messages.pose(stamp, self.robot.base_frame, self.poses[name]))
        if "joint_states" not in self.silent:
            self._joints.publish(self.alter(self._measured(stamp)))
        if self.enable is not None:
            self._enable.publish(Bool(data=self.enable))
        if self.accepts is not None:
            self._mode.publish(Bool(data=self.accepts))
        if self.torques:
            effort = messages.to_doubles(list(self.torques.values()))
            self._torque.publish(JointState(name=list(self.torques), effort=effort))
        if self._clock is not None:
            self._clock.publish(Clock(clock=messages.to_time(stamp)))

    def _measured(self, stamp: int) -> JointState:
        reference, gripper = self._controller.reference, self.robot.home.numpy()[7:]
        position = np.concatenate([reference.position, gripper])
        velocity = np.concatenate([reference.velocity, 0.0 * gripper])
        return messages.joint_state(stamp, self.robot.joint_names, position, velocity)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 15.0) -> Any:
    """Return what a condition gives once it holds."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
    return found


def stamped_after(stream: Iterable[Sent], stamp_ns: int) -> list[Sent]:
    """Return the messages stamped later than a time."""
    return [sent for sent in stream if sent.stamp_ns > stamp_ns]
