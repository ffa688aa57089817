"""Trajectory follower: the splines of a joint_trajectory_controller.

Facts from ros2_controllers, joint_trajectory_controller/src/trajectory.cpp and doc/trajectory.rst:
a segment between two points is linear where one of them has positions alone, cubic where both
have velocities, quintic where both have accelerations too; before the first point, the way leads
there from the state before the message; after the last point its position is held, and its
velocity is what the message says.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
SECOND_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Motion:
    """Where joints are and how they move.

    Attributes:
        position: (J,) rad or m.
        velocity: (J,) per s; None: not said.
        acceleration: (J,) per s^2; None: not said.
    """

    position: Array
    velocity: Array | None = None
    acceleration: Array | None = None


@dataclasses.dataclass(frozen=True)
class Waypoints:
    """A trajectory in the controller's order of joints.

    Attributes:
        start_ns: what its times count from; 0: when it is first sampled.
        times_ns: (R,) when each point is due, from the start, increasing.
        points: R motions.
    """

    start_ns: int
    times_ns: tuple[int, ...]
    points: tuple[Motion, ...]


class TrajectoryFollower:
    """Samples the trajectory that it was given last; at first it holds a position.

    Args:
        position: (J,) to hold.
    """

    def __init__(self, position: Array) -> None:
        self.hold(position)

    def hold(self, position: Array) -> None:
        """Stand at a position (J,) from now on."""
        self._set([0], [Motion(np.array(position, dtype=np.float64))])

    def follow(self, way: Waypoints, now_ns: int, before: Motion, before_ns: int) -> None:
        """Follow a trajectory from now on.

        Args:
            way: with at least one point.
            now_ns: the present, which a start of 0 stands for.
            before: the state from which the first point is approached, where it lies ahead.
            before_ns: when that state was.
        """
        start = way.start_ns or now_ns
        times, points = [start + due for due in way.times_ns], list(way.points)
        if now_ns < times[0]:
            times, points = [before_ns, *times], [before, *points]
        self._set(times, points)

    def sample(self, time_ns: int) -> Motion:
        """Return the motion at a time, velocity and acceleration included."""
        times = self._times
        row = bisect.bisect_right(times, time_ns) - 1
        if row >= len(times) - 1:
            return self._end
        row = max(row, 0)
        t = max(time_ns - times[row], 0) / SECOND_NS
        square = t * t
        powers = np.array([1.0, t, square, square * t, square * square, square * square * t])
        position, velocity, acceleration = (powers @ self._table(row)).reshape(3, -1)
        return Motion(position, velocity, acceleration)

    def has_ended(self, time_ns: int) -> bool:
        """Whether the last point is due."""
        return time_ns >= self._times[-1]

    @property
    def end_ns(self) -> int:
        """When the last point is due."""
        return self._times[-1]

    @property
    def end(self) -> Motion:
        """The last point; what it does not say is 0."""
        return self._end

    def _set(self, times: Sequence[int], points: Sequence[Motion]) -> None:
        self._times, self._points = list(times), list(points)
        self._tables: dict[int, Array] = {}
        last = self._points[-1]
        still = np.zeros_like(last.position)
        self._end = Motion(
            last.position,
            still if last.velocity is None else last.velocity,
            still if last.acceleration is None else last.acceleration,
        )

    def _table(self, row: int) -> Array:
        """Return what powers of time are multiplied with (6, 3 J), for the segment after a row."""
        table = self._tables.get(row)
        if table is None:
            duration = (self._times[row + 1] - self._times[row]) / SECOND_NS
            position = spline(self._points[row], self._points[row + 1], duration)
            velocity = _derivative(position)
            table = np.hstack([position, velocity, _derivative(velocity)])
            self._tables = {row: table}  # time goes on: no segment is sampled twice
        return table


def spline(first: Motion, last: Motion, duration: float) -> Array:
    """Return the coefficients (6, J) of the polynomial in t from one motion to another.

    Its order is the lowest that meets what both say. With the change d over the duration T,
    velocities v and accelerations a at the ends 0 and 1:

        linear   c1 = d / T
        cubic    c1 = v0, c2 = (3 d / T - 2 v0 - v1) / T, c3 = (v0 + v1 - 2 d / T) / T^2
        quintic  c1 = v0, c2 = a0 / 2,
                 c3 = (20 d - (12 v0 + 8 v1) T - (3 a0 - a1) T^2) / (2 T^3)
                 c4 = (-30 d + (16 v0 + 14 v1) T + (3 a0 - 2 a1) T^2) / (2 T^4)
                 c5 = (12 d - 6 (v0 + v1) T - (a0 - a1) T^2) / (2 T^5)

    Args:
        first, last: what holds at t = 0 and t = T.
        duration: T > 0, s.
    """
    table = np.zeros((6, len(first.position)))
    change, span = last.position - first.position, duration
    table[0] = first.position
    v0, v1, a0, a1 = first.velocity, last.velocity, first.acceleration, last.acceleration
    if v0 is None or v1 is None:
        table[1] = change / span
        return table
    table[1] = v0
    if a0 is None or a1 is None:
        table[2] = (3.0 * change / span - 2.0 * v0 - v1) / span
        table[3] = (v0 + v1 - 2.0 * change / span) / span**2
        return table
    table[2] = 0.5 * a0
    table[3] = 20.0 * change - (12.0 * v0 + 8.0 * v1) * span - (3.0 * a0 - a1) * span**2
    table[4] = -30.0 * change + (16.0 * v0 + 14.0 * v1) * span + (3.0 * a0 - 2.0 * a1) * span**2
    table[5] = 12.0 * change - 6.0 * (v0 + v1) * span - (a0 - a1) * span**2
    table[3:] /= np.array([[2.0 * span**3], [2.0 * span**4], [2.0 * span**5]])
    return table


def _derivative(table: Array) -> Array:
    """Return the coefficients (6, J) of the derivative of a polynomial."""
    moved = np.zeros_like(table)
    moved[:-1] = table[1:] * np.arange(1.0, 6.0)[:, None]
    return moved
