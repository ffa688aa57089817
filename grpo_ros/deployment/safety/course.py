"""Course: motions on the wire in time, each going on exactly where the one before leads.

The gate thinks in control periods of equal length; ticks come a little late, and a stop comes
between two. A motion therefore begins when the control point before it is due, a little after its
tick is, and until then the one before goes on. Where that time has gone by already, the arm has
gone on along what was sent, and so does the gate: the motion begins a period later.

When ticks are due is the timer's to say (`tick_ns`), not the first tick's: had that one come late,
all those after it would seem early.
"""

from __future__ import annotations

import numpy as np

from grpo_ros.contract import MOTION_LEAD
from grpo_ros.deployment.safety.curve import Array, Curve

NANOSECONDS = 1_000_000_000
SAME_TIME_S = 1e-7
"""Knots that are closer are one: a controller refuses times, in ns, that do not increase. One that
is left out bends the piece beside it: with 0.1 ms, a ramp of 4 ms was 5 % beyond its limit."""


class Course:
    """The motion that the arm follows.

    Args:
        period_s: T, between two control points.
        lead: share of T by which a motion begins after its tick is due; so late ticks may be.

    Attributes:
        tick_ns: when a tick is due, and others whole periods later; None: when the first comes.
    """

    def __init__(self, period_s: float, lead: float = MOTION_LEAD) -> None:
        self._period_ns = round(period_s * NANOSECONDS)
        self._lead_ns = round(lead * self._period_ns)
        self.tick_ns: int | None = None
        self.clear()

    def clear(self) -> None:
        """Begin anew: the arm stands."""
        self._curve: Curve | None = None
        self._begin_ns = self._due_ns = 0

    def num_missed(self, now_ns: int) -> int:
        """Return how many control periods have begun without a motion of their own."""
        if self._curve is None or now_ns <= self._due_ns:
            return 0
        return 1 + (now_ns - self._due_ns - 1) // self._period_ns

    def is_early(self, now_ns: int) -> bool:
        """Whether the tick after this one is in time for the period that comes next.

        So it is after a tick that came late, and was taken for that of the following period.
        """
        return self._curve is not None and self._due_ns - now_ns >= self._period_ns

    def has_ended(self, now_ns: int) -> bool:
        """Whether what was sent has come to rest."""
        left = self._left(now_ns)
        return left is None or left.end_s == 0.0

    def velocity(self, now_ns: int) -> Array | None:
        """Return how fast (J,) the robot moves along what was sent; None if nothing was."""
        left = self._left(now_ns)
        return None if left is None else left.velocities[0]

    def pass_by(self) -> None:
        """Let a period pass along the present motion."""
        self._due_ns += self._period_ns

    def shift(self, by_ns: int) -> None:
        """Go on in the time of a clock that was set: what was sent is carried out as before."""
        self._begin_ns += by_ns
        self._due_ns += by_ns
        if self.tick_ns is not None:
            self.tick_ns += by_ns

    def lay(self, curve: Curve, now_ns: int) -> Curve:
        """Take the motion of the next period; return what is to be sent, from now on."""
        left, begin_ns = self._left(now_ns), self._due_ns
        if left is None or now_ns > begin_ns:
            left, begin_ns = _still(curve), self._first_begin_ns(now_ns)
        sent = joined(left, curve, (begin_ns - now_ns) / NANOSECONDS)
        self._curve, self._begin_ns = sent, now_ns
        self._due_ns = begin_ns + self._period_ns
        return sent

    def _first_begin_ns(self, now_ns: int) -> int:
        """Return when a motion begins from standing."""
        begin_ns = (now_ns if self.tick_ns is None else self.tick_ns) + self._lead_ns
        return now_ns + (begin_ns - now_ns) % self._period_ns

    def _left(self, now_ns: int) -> Curve | None:
        """Return what is left of what was sent before."""
        if self._curve is None:
            return None
        return cut(self._curve, (now_ns - self._begin_ns) / NANOSECONDS)


class TwistCourse(Course):
    """The motion that a base follows.

    Twists are ramped to from tick to tick, without a lead: a motion begins at its tick. Periods
    without one are counted to the nearest.
    """

    def num_missed(self, now_ns: int) -> int:
        """Return how many control periods have passed without a motion of their own."""
        if self._curve is None:
            return 0
        return max(0, round((now_ns - self._due_ns) / self._period_ns))

    def is_early(self, now_ns: int) -> bool:
        """No tick is: none is taken for that of a later period."""
        return False

    def lay(self, curve: Curve, now_ns: int) -> Curve:
        """Take the motion that begins now; return it."""
        self._curve, self._begin_ns, self._due_ns = curve, now_ns, now_ns + self._period_ns
        return curve


def joined(first: Curve, second: Curve, seam_s: float) -> Curve:
    """Return the motion of `first` until the seam, and from there on that of `second`."""
    is_first = first.times < seam_s - SAME_TIME_S
    is_first[0] = True
    num = 1 if seam_s <= SAME_TIME_S else 0  # knots of the second that the present stands for
    return Curve(
        np.concatenate([first.times[is_first], second.times[num:] + seam_s]),
        np.concatenate([first.positions[is_first], second.positions[num:]]),
        np.concatenate([first.velocities[is_first], second.velocities[num:]]),
    )


def cut(curve: Curve, time_s: float) -> Curve:
    """Return what is left of a motion at a time."""
    if time_s <= 0.0:
        return curve
    position, velocity = curve.sample(time_s)
    later = curve.times > time_s + SAME_TIME_S
    return Curve(
        np.concatenate([[0.0], curve.times[later] - time_s]),
        np.concatenate([position[None], curve.positions[later]]),
        np.concatenate([velocity[None], curve.velocities[later]]),
    )


def _still(curve: Curve) -> Curve:
    """Return standing where a motion begins."""
    return Curve(np.zeros(1), curve.positions[:1], np.zeros_like(curve.velocities[:1]))
