"""Audit of what was commanded: the largest share of each limit that a stream of motions took.

Trajectories are followed exactly, each from its own stamp until the next one's, and sampled at
1 kHz. Acceleration is that of the cubic pieces; jerk is its difference from sample to sample,
seams between trajectories included. A motion that does not go on where the one before stood, at
its speed, is a jump, which is beyond any limit, and so is the end of one that is not at rest.
Pieces shorter than 0.2 ms, which a tick just before a knot leaves, are not sampled: whole
nanoseconds do not give them an acceleration. What they move beyond their limits is a jump too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.curve import Curve

Array = npt.NDArray[np.float64]
NANOSECONDS = 1_000_000_000
SAMPLE_S = 1e-3
SHORTEST_S = 2e-4
ROUNDING = 1e-3
"""Share by which a limit may seem to be exceeded: times are whole nanoseconds, so over 0.2 ms at
2 rad/s the acceleration is known to 0.3 rad/s^2 at worst, over 4 ms to 0.001."""
JUMP, VELOCITY_JUMP = 1e-5, 1e-3
"""Steps of position and velocity, rad or m and per s, that rounding of times may leave."""


class CommandAudit:
    """Follows trajectories (J joints) and keeps the largest share of each limit.

    Args:
        limits: of the joints, in the order of the curves' columns.
    """

    def __init__(self, limits: Sequence[JointLimits]) -> None:
        names = ("lower", "upper", "velocity", "acceleration", "jerk")
        self._lower, self._upper, self._velocity, self._acceleration, self._jerk = (
            np.array([getattr(limit, name) for limit in limits]) for name in names
        )
        self.num_motions = self.num_samples = 0
        self.num_unreadable = 0
        """Commands that could not be followed; each is beyond any limit."""
        self.shares = {"velocity": 0.0, "acceleration": 0.0, "jerk": 0.0}
        self.outside = -np.inf
        """Farthest beyond a position limit, rad or m; negative: within."""
        self.jump = self.velocity_jump = 0.0
        """Largest steps of position and velocity, rad or m and per s."""
        self._now: tuple[int, Curve] | None = None
        self._last: Array | None = None

    def begin(self) -> None:
        """The arm was put elsewhere: what comes next need not go on from what was."""
        self.finish()
        self._now = self._last = None

    def note(self, stamp_ns: int, curve: Curve) -> None:
        """Take a motion that begins at a stamp; it ends the one before."""
        if self._now is not None:
            began_ns, before = self._now
            elapsed_s = max(0.0, (stamp_ns - began_ns) / NANOSECONDS)
            self._follow(before, elapsed_s)
            position, velocity = before.sample(elapsed_s)
            self._leap(
                np.abs(curve.positions[0] - position), np.abs(curve.velocities[0] - velocity)
            )
        self._now = stamp_ns, curve
        self.num_motions += 1

    def finish(self) -> None:
        """Follow the last motion to its end."""
        if self._now is not None:
            self._follow(self._now[1], self._now[1].end_s + SAMPLE_S)
            self._now = None

    def report(self) -> dict[str, float | int]:
        """Return the shares, 1 being the limit itself, and how many motions there were."""
        return {
            "motions": self.num_motions,
            "samples": self.num_samples,
            **{f"{name}_share": round(share, 6) for name, share in self.shares.items()},
            "beyond_position_limit": round(max(self.outside, -1e6), 6),
            "largest_jump": float(f"{self.jump:.3g}"),
            "largest_velocity_jump": float(f"{self.velocity_jump:.3g}"),
            "unreadable": self.num_unreadable,
            "is_within_limits": self.is_within_limits,
        }

    @property
    def is_within_limits(self) -> bool:
        """Whether there was motion, all of it readable, and no limit exceeded but for rounding."""
        return (
            self.num_motions > 0
            and self.num_unreadable == 0
            and self.outside <= ROUNDING
            and self.jump <= JUMP
            and self.velocity_jump <= VELOCITY_JUMP
            and all(share <= 1.0 + ROUNDING for share in self.shares.values())
        )

    def _follow(self, curve: Curve, until_s: float) -> None:
        """Sample a motion over [0, until_s)."""
        self._follow_steps(curve, until_s)
        times: Array = np.arange(0.0, until_s, SAMPLE_S, dtype=np.float64)
        times = np.asarray(times[_span(curve, times) >= SHORTEST_S])
        if not len(times):
            return
        position, velocity, acceleration = sample(curve, times)
        steps, gaps = acceleration, np.diff(times)
        if self._last is not None:
            steps = np.concatenate([self._last[None], acceleration])
            gaps = np.concatenate([[SAMPLE_S], gaps])
        self._take("velocity", velocity, self._velocity)
        self._take("acceleration", acceleration, self._acceleration)
        if len(steps) > 1:
            self._take("jerk", np.diff(steps, axis=0) / gaps[:, None], self._jerk)
        beyond = np.maximum(self._lower - position, position - self._upper)
        self.outside = _larger(self.outside, beyond)
        self._last = acceleration[-1]
        self.num_samples += len(times)

    def _follow_steps(self, curve: Curve, until_s: float) -> None:
        """Take what a motion leaps over [0, until_s): its shortest pieces, and its end."""
        spans = np.diff(curve.times)
        row = (spans < SHORTEST_S) & (curve.times[:-1] < until_s)
        span = np.maximum(spans[row], 0.0)[:, None]
        moved = np.abs(np.diff(curve.positions, axis=0)[row]) - self._velocity * span
        turned = np.abs(np.diff(curve.velocities, axis=0)[row]) - self._acceleration * span
        self._leap(moved, turned)
        if until_s > curve.end_s:
            self._leap(np.zeros(1), np.abs(curve.velocities[-1]))

    def _leap(self, position: Array, velocity: Array) -> None:
        self.jump = _larger(self.jump, position)
        self.velocity_jump = _larger(self.velocity_jump, velocity)

    def _take(self, name: str, values: Array, limit: Array) -> None:
        self.shares[name] = _larger(self.shares[name], np.abs(values) / limit)


def _larger(largest: float, values: Array) -> float:
    """Return the largest of all; NaN where one of them is NaN: what is none keeps no limit."""
    return float(np.maximum(largest, values.max(initial=-np.inf)))


def _span(curve: Curve, times: Array) -> Array:
    """Return the length (n,) of the piece that each time lies in; inf after the end."""
    spans = np.append(np.diff(curve.times), np.inf)
    return np.asarray(spans[np.searchsorted(curve.times, times, side="right") - 1])


def sample(curve: Curve, times: Array) -> tuple[Array, Array, Array]:
    """Return position, velocity and acceleration (n, J) of a motion at times (n,), s."""
    knots = curve.times
    if len(knots) == 1:
        still = np.zeros((len(times), curve.positions.shape[1]))
        return still + curve.positions[0], still, still
    row = np.clip(np.searchsorted(knots, times, side="right") - 1, 0, len(knots) - 2)
    span = (knots[row + 1] - knots[row])[:, None]
    s = np.clip((times - knots[row])[:, None] / span, 0.0, 1.0)
    p0, p1 = curve.positions[row], curve.positions[row + 1]
    v0, v1 = curve.velocities[row] * span, curve.velocities[row + 1] * span
    rise = p1 - p0
    c2, c3 = 3.0 * rise - 2.0 * v0 - v1, v0 + v1 - 2.0 * rise
    is_over = (times >= knots[-1])[:, None]
    position = p0 + s * (v0 + s * (c2 + s * c3))
    velocity = np.where(is_over, 0.0, (v0 + s * (2.0 * c2 + 3.0 * s * c3)) / span)
    acceleration = np.where(is_over, 0.0, (2.0 * c2 + 6.0 * s * c3) / span**2)
    return position, velocity, acceleration
