"""Streamed commands of a simulated robot: forward command controllers, joint commands, cmd_vel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from geometry_msgs.msg import Twist, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.deployment.simulation.trajectory_follower import Array
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.lifecycle import guarded

BASE_COMMANDS: Mapping[str, Any] = {"twist": Twist, "twist_stamped": TwistStamped}
THROTTLE_S = 1.0


class StreamedCommands:
    """Subscriptions to what carries one command per message; what is not sound changes nothing.

    Args:
        node: that subscribes.
        sim: that obeys.
        lock_step: nothing is subscribed to then, since commands are stamped there.

    Raises:
        ConfigurationError: in lock step, the robot takes commands without a stamp.
    """

    def __init__(self, node: Any, sim: SimulatedRobot, lock_step: bool) -> None:
        self.node, self.sim = node, sim
        self._subscriptions: list[Any] = []
        interfaces = sim.robot.interfaces
        self._is_velocity = interfaces.arm_command == "velocity_stream"
        kind = BASE_COMMANDS.get(interfaces.arm_command)
        if lock_step:
            if kind is Twist:
                raise ConfigurationError(
                    f"robot '{sim.robot.name}' takes a Twist, which has no stamp",
                    expected="arm_command: twist_stamped in lock step",
                )
        elif kind is not None:
            self.listen(kind, interfaces.cmd_vel, self._on_twist)
        else:
            self.listen(Float64MultiArray, interfaces.arm_stream_topic, self._on_stream)
            self.listen(JointState, interfaces.arm_joint_command, self._on_joint_command)

    def listen(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        """Subscribe to commands, where the robot's YAML names the topic."""
        if topic:
            guard = guarded(self.node, topic, callback)
            self._subscriptions.append(
                self.node.create_subscription(kind, topic, guard, qos.COMMAND)
            )

    def destroy(self) -> None:
        """Take no commands any more."""
        for subscription in self._subscriptions:
            self.node.destroy_subscription(subscription)

    def _on_twist(self, message: Twist | TwistStamped) -> None:
        stamp_ns = 0
        if isinstance(message, TwistStamped):
            stamp_ns, message = messages.to_ns(message.header.stamp), message.twist
        self._try(
            "cmd_vel",
            lambda: self.sim.command_base(message.linear.x, message.angular.z, stamp_ns),
        )

    def _on_stream(self, message: Float64MultiArray) -> None:
        values = messages.from_doubles(message.data)
        joints = self.sim.arm_joints
        position, velocity = (None, values) if self._is_velocity else (values, None)
        self._try("arm stream", lambda: self.sim.stream_arm(joints, position, velocity))

    def _on_joint_command(self, message: JointState) -> None:
        self._try("joint command", lambda: self._take(message))

    def _take(self, message: JointState) -> None:
        """Send named joints where a message says; the gripper's driver may be among them."""
        names = list(message.name)
        position, velocity = _values(message.position), _values(message.velocity)
        for what, values in (("positions", position), ("velocities", velocity)):
            if values is not None and len(values) != len(names):
                raise ValueError(f"{len(values)} {what} for {len(names)} joints")
        gripper = self.sim.robot.gripper
        if gripper is not None and gripper.joint in names:
            column = names.index(gripper.joint)
            if position is None or not np.isfinite(position[column]):
                raise ValueError(f"the gripper's joint '{gripper.joint}' takes positions only")
            names.pop(column)
            opening = float(position[column])
            position = np.delete(position, column)
            velocity = None if velocity is None else np.delete(velocity, column)
            if names:
                self.sim.stream_arm(names, position, velocity)
            self.sim.command_gripper(opening)
            return
        self.sim.stream_arm(names, position, velocity)

    def _try(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except ValueError as problem:
            self.node.get_logger().error(
                f"{what} refused: {problem}", throttle_duration_sec=THROTTLE_S
            )


def _values(field: Any) -> Array | None:
    return messages.from_doubles(field) if len(field) else None
