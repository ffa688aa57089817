"""What the fault watch listens to: the enable switch, the robot's mode, external torques."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import JointState
from std_msgs.msg import Bool

from grpo_ros.deployment.safety.faults import FaultConfig, FaultWatch
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.recording.noting import OnMessage, noted, type_name
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.robots.robot import Robot


class FaultInputs:
    """Subscribes to what the robot's YAML and the parameters name.

    Args:
        node: that subscribes.
        robot: names the mode's and the torques' topics.
        config: names the enable topic.
        watch: is told.
        on_change: called when something was reported, so that a released switch stops at once.
        on_message: is shown every message.
        steady: the clock of arrivals, s.

    Raises:
        ConfigurationError: the mode's type is not installed, or has no such field.
    """

    def __init__(
        self,
        node: Any,
        robot: Robot,
        config: FaultConfig,
        watch: FaultWatch,
        on_change: Callable[[], None],
        on_message: OnMessage | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._watch, self._on_change = node, watch, on_change
        self._on_message, self._steady = on_message, steady
        self._made: list[Any] = []
        self._topics: list[tuple[str, str]] = []
        self.remedies: dict[str, str] = {}
        """Full name of a topic -> what it is and what to do where nobody publishes it."""
        mode = robot.safety.robot_mode
        if mode is not None and config.watch_mode:
            kind = message_type(mode.type)
            read = field_reader(kind, mode.type, mode.field)
            # What is published on change only was published long before this node was there.
            profile = qos.LATCHED if mode.latched else qos.SENSOR
            self._listen(kind, mode.topic, lambda message: self._on_mode(read(message)), profile)
        if config.enable_topic:
            self._listen(Bool, config.enable_topic, self._on_enable, qos.SENSOR)
            switch, rate_hz = self._topics[-1][0], math.ceil(4.0 / config.enable_timeout_s)
            self.remedies[switch] = (
                "the enable switch: start its driver, or, by hand, ros2 topic pub -r "
                f"{rate_hz} {switch} std_msgs/msg/Bool '{{data: true}}'; an empty "
                "runner.faults.enable_topic (deploy.launch.py: enable_topic:=none) asks for none"
            )
        external = robot.safety.external_torque
        if external is not None and config.watch_torque:
            self._listen(JointState, external.topic, self._on_torque, qos.SENSOR)

    def topics(self) -> tuple[tuple[str, str], ...]:
        """Return full name and type, as pkg/msg/Type, of what it listens to."""
        return tuple(self._topics)

    def destroy(self) -> None:
        """Stop listening."""
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self._made = []

    def _listen(
        self, kind: Any, topic: str, callback: Callable[[Any], None], profile: Any
    ) -> None:
        name = self._node.resolve_topic_name(topic), type_name(kind)
        call = noted(self._on_message, *name, callback)
        self._made.append(self._node.create_subscription(kind, topic, call, profile))
        self._topics.append(name)

    def _on_enable(self, message: Bool) -> None:
        self._watch.put_enable(bool(message.data), self._steady())
        self._on_change()

    def _on_mode(self, value: str) -> None:
        self._watch.put_mode(value, self._steady())
        self._on_change()

    def _on_torque(self, message: JointState) -> None:
        self._watch.put_torque(
            list(message.name), messages.from_doubles(message.effort), self._steady()
        )
        self._on_change()


def message_type(name: str) -> Any:
    """Return the class of a message by its name, pkg/msg/Type.

    Raises:
        ConfigurationError: it is not installed.
    """
    from rosidl_runtime_py.utilities import get_message

    try:
        return get_message(name)
    except (AttributeError, ModuleNotFoundError, ValueError) as problem:
        raise ConfigurationError(
            f"robot_mode.type is '{name}', which is not installed ({problem})",
            expected="a message type, as pkg/msg/Type",
            remedy=f"install ros-jazzy-{name.split('/')[0].replace('_', '-')}",
        ) from problem


def field_reader(kind: Any, name: str, field: str) -> Callable[[Any], str]:
    """Return what reads a dotted field of a message as text.

    Raises:
        ConfigurationError: the message has no such field.
    """
    parts = field.split(".")

    def read(message: Any) -> str:
        value = message
        for part in parts:
            value = getattr(value, part)
        return str(value)

    try:
        read(kind())
    except AttributeError as problem:
        raise ConfigurationError(
            f"robot_mode.field is '{field}' of {name}", expected="a field of that message"
        ) from problem
    return read
