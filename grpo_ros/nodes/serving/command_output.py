"""What carries a motion to the robot: one class per standard interface.

Each is given what the safety gate let through and nothing else. `send` is called once per control
period; between two calls, streams follow the motion's curve by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from grpo_ros.deployment.answers import Motion
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.recording.noting import OnMessage
from grpo_ros.nodes.serving.command_stream import Stream
from grpo_ros.nodes.serving.trajectory_output import TrajectoryAction, TrajectoryTopic
from grpo_ros.robots.robot import Robot


class CommandOutput(Protocol):
    """Sends motions over one interface."""

    name: str
    type_name: str

    def problem(self) -> str:
        """Return what keeps it from being used now; empty if nothing does."""

    def send(self, motion: Motion, began_s: float) -> None:
        """Send a motion; `began_s`: when its stamp was read, on the steady clock."""

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
