"""Stream: samples of a motion at a rate of their own."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import rclpy.clock
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.clock import ClockType
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from grpo_ros.deployment.answers import Motion
from grpo_ros.nodes.recording.noting import OnMessage, pass_over, type_name
from grpo_ros.nodes.serving.clock_watch import StillWatch
from grpo_ros.nodes.serving.listeners import publisher_problem
from grpo_ros.nodes.serving.trajectory_output import TRAJECTORY, as_trajectory
from grpo_ros.nodes.shared import messages, qos

LONGEST_STOP_S = 2.0
MOTION = "/motion"
"""Added to the name of a stream: the trajectories behind it, as they are noted."""


class Stream:
    """Publishes samples of the motion at a rate of its own.

    A stream that ends leaves the robot at its last sample: position commands hold there, velocity
    commands go on until the driver's own watchdog stops them. While simulated time stands still
    it sends rest, and then goes on where the motion stood.

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
        self._on_message = on_message or pass_over
        message = {"joint_command": JointState, "twist": Twist, "twist_stamped": TwistStamped}.get(
            kind, Float64MultiArray
        )
        self.type_name = type_name(message)
        self._publisher = node.create_lifecycle_publisher(message, name, qos.COMMAND)
        self.beside: dict[str, float] = {}
        """joint_command: positions of joints that go along with the arm's, as a gripper's."""
        self._motion: Motion | None = None
        self._began_s = 0.0
        self._still_watch = StillWatch()
        self._position: Any = None
        self._rate_hz = rate_hz
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = (
            None if rate_hz is None else node.create_timer(1.0 / rate_hz, self._tick, clock=wall)
        )

    def problem(self) -> str:
        """See CommandOutput."""
        return publisher_problem(self.node, self.name, self.type_name)

    def send(self, motion: Motion, began_s: float) -> None:
        """See CommandOutput."""
        if motion.curve is not None:
            make = functools.partial(as_trajectory, motion)
            self._on_message(self.name + MOTION, TRAJECTORY, make)
        if self._rate_hz is None and len(motion.points):
            self._publish(motion.names, motion.points[0], motion.points[0], motion.stamp_ns)
        elif motion.curve is not None:
            self._motion, self._began_s = motion, began_s
            if self._clock_stands():  # no tick comes then: this is a stop
                self.stand()
            self._tick()

    def finish(self) -> None:
        """Play the motion to its end, which takes as long as braking does.

        Simulated time stands still meanwhile, since this is the thread that hears of it.
        """
        motion, began_s = self._motion, time.monotonic()
        if motion is None:
            return
        now_ns, elapsed_s = self._now_ns(), self._elapsed_s(motion)
        is_lost, played_s = elapsed_s < 0.0 or self._clock_stands(), 0.0
        while self._motion is not None and not is_lost and played_s < LONGEST_STOP_S:
            self._sample(
                motion, elapsed_s + played_s, now_ns + round(played_s * messages.NANOSECONDS)
            )
            time.sleep(1.0 / (self._rate_hz or 100.0))
            played_s = time.monotonic() - began_s
        self.stand()

    def stand(self) -> None:
        """Send rest where the last sample led, unless the motion has ended."""
        if self._motion is not None:
            self._rest(self._motion)
            self._motion = None

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
        elif self._clock_stands():
            self._rest(self._motion)
        else:
            self._sample(self._motion, elapsed_s, self._now_ns())

    def _rest(self, motion: Motion) -> None:
        assert motion.curve is not None, "only motions with a curve are kept"
        position = motion.curve.positions[0] if self._position is None else self._position
        self._publish(motion.names, position, np.zeros_like(position), self._now_ns())

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
        if self._is_simulated:
            return (self._now_ns() - motion.stamp_ns) / messages.NANOSECONDS
        return time.monotonic() - self._began_s

    def _clock_stands(self) -> bool:
        return self._is_simulated and self._still_watch.stands(self._now_ns())

    @property
    def _is_simulated(self) -> bool:
        return bool(self.node.get_clock().ros_time_is_active)

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
