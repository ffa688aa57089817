"""Limits of joints on a stream of control points, in differences per control period T:

    v_k = (q_k - q_{k-1}) / T,  |v_k| <= v_max,  |v_k - v_{k-1}| <= a_max T,
    lower <= q_k <= upper.

A control point is admissible only if from it the joint can still stop before its position limit;
that is why braking begins in time and no limit has to be given up for another. What these limits
mean for the motion between control points is in `curve`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits
from grpo_ros.errors import ContractError

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-6
"""Share of a limit by which a target may exceed it and still pass unchanged (rounding)."""
POSITION_TOLERANCE = 1e-9
ROUNDING = 1e-9
"""Share of a braking step that is not worth a step of its own."""


class ControlPointLimiter:
    """Moves control points into the limits; holds no state but the limits.

    Arrays are (..., J) float64, rad or m. Jerk is limited through acceleration: a change from
    -a_max to a_max takes `ramp_s`, which may be no longer than T, so a_max <= j_max T / 2.

    Args:
        limits: of the joints, in order.
        period_s: T.

    Raises:
        ContractError: no joint, or limits that are not finite and above 0.
    """

    def __init__(self, limits: Sequence[JointLimits], period_s: float) -> None:
        if not limits or period_s <= 0.0:
            raise ContractError(
                f"limits of {len(limits)} joints and a period of {period_s} s",
                expected="at least one joint and a period above 0",
            )
        self.joint_names = tuple(limit.name for limit in limits)
        self.period_s = period_s
        self.lower, self.upper, self.velocity, acceleration, self.jerk = (
            np.array([getattr(limit, name) for limit in limits], dtype=np.float64)
            for name in ("lower", "upper", "velocity", "acceleration", "jerk")
        )
        is_sound = np.isfinite(self.lower) & np.isfinite(self.upper) & (self.lower < self.upper)
        is_sound &= (self.velocity > 0) & (acceleration > 0) & (self.jerk > 0)
        if not is_sound.all():
            raise ContractError(
                f"limits of joints {list(self.joint_names)}",
                expected="finite positions with lower < upper; velocity, acceleration and jerk "
                "above 0",
            )
        self.acceleration: Array = np.minimum(acceleration, 0.5 * self.jerk * period_s)
        self.ramp_s = min(period_s, float(np.max(2.0 * self.acceleration / self.jerk)))
        self.velocity_step: Array = self.acceleration * period_s
        self._slack = TOLERANCE * (self.velocity + self.velocity_step)

    def limit(
        self, position: Array, velocity: Array, target: Array, share: float = 1.0
    ) -> tuple[Array, Array]:
        """Return a target and its velocity (J,), moved as little as the limits ask for.

        Args:
            position: (J,) the control point before. velocity: (J,) its velocity.
            target: (J,) what is asked for.
            share: of the velocity limits that holds now.
        """
        wanted = (target - position) / self.period_s
        low, high = self.velocity_range(position, velocity, share)
        edge = POSITION_TOLERANCE
        sound = (wanted >= low - self._slack) & (wanted <= high + self._slack)
        sound &= (target >= self.lower - edge) & (target <= self.upper + edge)
        if sound.all():
            return target.copy(), wanted
        limited = np.clip(wanted, low, high)
        moved = self.move(position, limited)
        return np.where(sound, target, moved), np.where(sound, wanted, limited)

    def brake(self, position: Array, velocity: Array) -> tuple[Array, Array]:
        """Return the next control points and velocities (..., J) on the fastest way to rest."""
        slower = np.copysign(np.maximum(np.abs(velocity) - self.velocity_step, 0.0), velocity)
        return self.move(position, slower), slower

    def braking(self, position: Array, velocity: Array) -> Array:
        """Return the control points (n, ..., J), n >= 1, that come to rest; the last two agree."""
        speed = np.abs(velocity)
        num = max(1, math.ceil(float((speed / self.velocity_step).max()) - ROUNDING))
        row = np.arange(1, num + 1).reshape(-1, *(1,) * velocity.ndim)
        slower = np.maximum(speed - row * self.velocity_step, 0.0)
        slower[-1] = 0.0
        return self.move(position, np.copysign(np.cumsum(slower, axis=0), velocity))

    def move(self, position: Array, velocity: Array) -> Array:
        """Return the control points (..., J) one period on at a velocity within its range."""
        moved = position + velocity * self.period_s
        # Rounding only: the velocity range already ends where the position limit does.
        slack = POSITION_TOLERANCE
        above, below = moved - self.upper, self.lower - moved
        if (above > 0.0).any() or (below > 0.0).any():
            moved = np.where((above > 0.0) & (above < slack), self.upper, moved)
            moved = np.where((below > 0.0) & (below < slack), self.lower, moved)
        return np.asarray(moved)

    def velocity_range(
        self, position: Array, velocity: Array, share: float = 1.0
    ) -> tuple[Array, Array]:
        """Return the velocities (J,) from which every limit can be kept from now on."""
        slowest, fastest = velocity - self.velocity_step, velocity + self.velocity_step
        most = self.velocity * share
        down, up = self._stoppable(np.stack([position - self.lower, self.upper - position]))
        low, high = np.maximum(-most, -down), np.minimum(most, up)
        # A joint that starts outside its limits, or too fast, returns as fast as it may.
        return (
            np.minimum(np.maximum(low, slowest), fastest),
            np.maximum(np.minimum(high, fastest), slowest),
        )

    def _stoppable(self, distance: Array) -> Array:
        """Return the largest velocity (..., J) from which a joint stops within `distance`.

        Moving one period at v, then braking by b = a T per period covers, with n = floor(v / b),
            T ((n + 1) v - b n (n + 1) / 2),
        which is solved for v: n is the largest with T b n (n + 1) / 2 <= distance, and
            v = distance / (T (n + 1)) + b n / 2.
        """
        unit = self.period_s * self.velocity_step
        room = np.maximum(distance, 0.0)
        n = np.floor((np.sqrt(1.0 + 8.0 * room / unit) - 1.0) / 2.0)
        speed = room / (self.period_s * (n + 1.0)) + self.velocity_step * n / 2.0
        return np.where(distance >= 0.0, speed, distance / self.period_s)

    def exceeded(
        self, position: Array, velocity: Array, target: Array, share: float = 1.0
    ) -> dict[str, int]:
        """Return which limits a target (J,) exceeds: kind -> the first joint's column."""
        wanted = (target - position) / self.period_s
        low, high = self.velocity_range(position, velocity, share)
        edge = POSITION_TOLERANCE
        outside = (target < self.lower - edge) | (target > self.upper + edge)
        too_fast = np.abs(wanted) > self.velocity * share + self._slack
        too_sudden = np.abs(wanted - velocity) > self.velocity_step + self._slack
        unstoppable = (wanted > high + self._slack) | (wanted < low - self._slack)
        found = {
            "position": outside | (unstoppable & ~too_fast & ~too_sudden),
            "velocity": too_fast,
            "acceleration": too_sudden,
        }
        return {kind: int(np.argmax(where)) for kind, where in found.items() if where.any()}
