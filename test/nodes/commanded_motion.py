"""What trajectories make a stock joint_trajectory_controller command, checked against limits.

Two ways to follow the same messages. `exactly`: each takes over at its own stamp, as it does where
messages take no time; every limit has to hold then, and nothing may jump. `as_received`: a
controller at 1 kHz takes each message when it came; the way it went meanwhile and the way that it
should have gone part by no more than a_max delay^2, since both kept the acceleration's limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.trajectory_checks import TrajectoryRefused, check_trajectory
from grpo_ros.deployment.simulation.trajectory_controller import TrajectoryController
from grpo_ros.deployment.simulation.trajectory_follower import (
    SECOND_NS,
    Motion,
    Waypoints,
    spline,
)
from grpo_ros.nodes.shared import messages
from grpo_ros.nodes.simulated import controller_messages

Array = npt.NDArray[np.float64]
UPDATE_NS = 1_000_000
ROUNDING = 1e-5
"""Share of a limit, and rad or m of a jump: times are rounded to nanoseconds."""


@dataclasses.dataclass(frozen=True)
class Sent:
    """A trajectory, and when it came, ns of the clock of its stamp."""

    arrival_ns: int
    message: Any

    @property
    def stamp_ns(self) -> int:
        """Of its header."""
        return messages.to_ns(self.message.header.stamp)


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of J joints as arrays (J,), rad or m and their derivatives."""

    names: tuple[str, ...]
    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array

    @classmethod
    def of(cls, limits: Sequence[JointLimits]) -> Limits:
        """Return the limits of joints, in order."""
        keys = ("lower", "upper", "velocity", "acceleration")
        arrays = (np.array([getattr(limit, key) for limit in limits]) for key in keys)
        return cls(tuple(limit.name for limit in limits), *arrays)


def waypoints(sent: Sent, limits: Limits, now_ns: int) -> Waypoints:
    """Return a trajectory as the controller takes it.

    Raises:
        TrajectoryRefused: a stock controller would not follow it.
    """
    message = sent.message
    return check_trajectory(
        list(message.joint_names),
        sent.stamp_ns,
        controller_messages.raw_points(message),
        limits.names,
        now_ns,
        ControllerSettings(),
        np.zeros(len(limits.names)),
    )


def exactly(stream: Sequence[Sent], limits: Limits) -> list[str]:
    """Return what is wrong with a stream of which each message takes over at its stamp."""
    problems: list[str] = []
    before: tuple[int, Waypoints] | None = None
    for number, sent in enumerate(stream):
        try:
            way = waypoints(sent, limits, sent.stamp_ns)
        except TrajectoryRefused as refused:
            problems.append(f"message {number}: {refused}")
            continue
        begin_ns = sent.stamp_ns
        problems += [f"message {number}: {what}" for what in _beyond(way, limits)]
        if before is not None:
            if begin_ns < before[0]:
                problems.append(f"message {number}: stamped before message {number - 1}")
            problems += [
                f"message {number}, {(begin_ns - before[0]) / 1e6:.3f} ms after the one before: "
                f"{what}"
                for what in _jumps(before[1], way, begin_ns, limits)
            ]
        before = begin_ns, way
    return problems


def as_received(stream: Sequence[Sent], limits: Limits, start: Array) -> tuple[Array, list[str]]:
    """Return positions (M, J) that a controller at 1 kHz commands, and what is wrong with them.

    Args:
        stream: in the order of arrival. limits: of the joints.
        start: (J,) where the arm stood before.
    """
    controller = TrajectoryController(limits.names, ControllerSettings(), start)
    pending, now_ns = list(stream), stream[0].arrival_ns
    end_ns, delay_ns, positions, problems = now_ns, 0, [np.array(start)], []
    while pending or now_ns < end_ns:
        while pending and pending[0].arrival_ns <= now_ns:
            sent = pending.pop(0)
            delay_ns = max(delay_ns, now_ns - sent.stamp_ns)
            try:
                way = waypoints(sent, limits, now_ns)
            except TrajectoryRefused as refused:
                problems.append(str(refused))
                continue
            controller.command(way)
            end_ns = way.start_ns + way.times_ns[-1] + 2 * UPDATE_NS
        last = controller.reference.velocity
        controller.update(now_ns, UPDATE_NS, Motion(controller.output, last))
        positions.append(controller.output)
        now_ns += UPDATE_NS
    path, delay_s, step_s = np.stack(positions), delay_ns / SECOND_NS, UPDATE_NS / SECOND_NS
    parted = limits.acceleration * delay_s**2 + ROUNDING
    outside = (path < limits.lower - parted) | (path > limits.upper + parted)
    step = np.abs(np.diff(path, axis=0))
    too_far = step > limits.velocity * step_s + parted
    for what, where, values in (("position", outside, path), ("step", too_far, step)):
        if where.any():
            row, column = np.argwhere(where)[0]
            value = float(values[row, column])
            problems.append(
                f"{what} of {limits.names[column]} is {value:.6f} after {row} ms; messages took "
                f"{1e3 * delay_s:.1f} ms at most"
            )
    return path, problems


def slows_down(sent: Sent, limits: Limits, within_s: float) -> bool:
    """Whether a trajectory only brakes after a time: no joint's speed grows from knot to knot."""
    way = waypoints(sent, limits, 0)
    late = [due >= within_s * SECOND_NS for due in way.times_ns]
    speeds = np.abs([motion.velocity for motion in way.points])[late]
    return bool((np.diff(speeds, axis=0) <= ROUNDING).all())


def ends_at_rest(sent: Sent, limits: Limits) -> bool:
    """Whether a trajectory's last point stands still."""
    end = waypoints(sent, limits, 0).points[-1]
    return end.velocity is not None and not end.velocity.any()


def _state(way: Waypoints, time_ns: int) -> tuple[Array, Array]:
    """Return position and velocity (J,) of a way of cubic pieces at a time."""
    times = np.array(way.times_ns, dtype=np.int64) + way.start_ns
    if time_ns >= times[-1]:
        last = way.points[-1]
        return last.position, np.asarray(last.velocity)
    row = max(0, int(np.searchsorted(times, time_ns, side="right")) - 1)
    span = (times[row + 1] - times[row]) / SECOND_NS
    table = spline(way.points[row], way.points[row + 1], span)
    t = (time_ns - times[row]) / SECOND_NS
    powers, slopes = t ** np.arange(6.0), np.zeros(6)
    slopes[1:] = np.arange(1.0, 6.0) * t ** np.arange(5.0)
    return powers @ table, slopes @ table


def _beyond(way: Waypoints, limits: Limits) -> list[str]:
    """Return which limits a way of cubic pieces exceeds; its extremes are at knots or between."""
    found = []
    if way.times_ns[0] != 0:
        found.append(f"the first point is due after {way.times_ns[0]} ns, not at its stamp")
    for row in range(len(way.points) - 1):
        first, last = way.points[row], way.points[row + 1]
        span = (way.times_ns[row + 1] - way.times_ns[row]) / SECOND_NS
        t = np.linspace(0.0, span, 9)[:, None]
        c = spline(first, last, span)
        position = c[0] + t * (c[1] + t * (c[2] + t * c[3]))
        speed = np.abs(c[1] + t * (2.0 * c[2] + t * 3.0 * c[3]))
        acceleration = np.abs(2.0 * c[2] + 6.0 * t * c[3])
        # A nanosecond's rounding of the span shows in what is divided by it.
        speed_slack = ROUNDING + 2e-9 / span
        rate_slack = ROUNDING + 8e-9 * limits.velocity / (limits.acceleration * span**2)
        for what, excess, slack in (
            ("position", np.maximum(position - limits.upper, limits.lower - position), ROUNDING),
            ("velocity", speed / limits.velocity - 1.0, speed_slack),
            ("acceleration", acceleration / limits.acceleration - 1.0, rate_slack),
        ):
            if (excess > slack).any():
                column = int(np.argmax((excess - slack).max(axis=0)))
                worst = float(excess[:, column].max())
                found.append(
                    f"{what} of {limits.names[column]} is {worst:.2g} beyond its limit in the "
                    f"{1e3 * span:.3f} ms before {way.times_ns[row + 1] / 1e6:.3f} ms"
                )
    return found


def _jumps(before: Waypoints, way: Waypoints, time_ns: int, limits: Limits) -> list[str]:
    (old, old_speed), (new, new_speed) = _state(before, time_ns), _state(way, time_ns)
    found = []
    for what, jump, most in (
        ("position", np.abs(new - old), ROUNDING),
        ("velocity", np.abs(new_speed - old_speed), 1e-3),
    ):
        column = int(np.argmax(jump))
        if jump[column] > most:
            found.append(f"{what} of {limits.names[column]} jumps by {jump[column]:.2g}")
    return found
