"""Limits of joints on a stream of control points, in differences per control period T:

    v_k = (q_k - q_{k-1}) / T,  |v_k| <= v_max,  |v_k - v_{k-1}| <= a_max T,
    lower <= q_k <= upper.

A control point is admissible only if from it the joint can still stop before its position limit;
that is why braking begins in time and no limit has to be given up for another. A joint that is
beyond a position limit already may stay or come back, as it is asked, and never goes further out.
What these limits mean for the motion between control points is in `curve`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits
from grpo_ros.errors import ContractError

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-9
"""Share of a limit by which a target may exceed it and still pass unchanged (rounding)."""
POSITION_TOLERANCE = 1e-9
"""Distance, in rad or m, that is rounding alone."""
ROUNDING = 1e-9
"""Share of a braking step that is not worth a step of its own."""
LEAST_RAMP_S = 1e-3
"""No controller samples faster; shorter ramps would only bring knots too near to each other."""
LEAST_GAP_S = 1e-4


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
        for rate in (self.velocity, acceleration, self.jerk):
            is_sound &= np.isfinite(rate) & (rate > 0.0)
        if not is_sound.all():
            raise ContractError(
                f"limits of joints {list(self.joint_names)}",
                expected="finite numbers with lower < upper; velocity, acceleration and jerk "
                "above 0",
            )
        self.acceleration: Array = np.minimum(acceleration, 0.5 * self.jerk * period_s)
        ramp_s = max(float(np.max(2.0 * self.acceleration / self.jerk)), LEAST_RAMP_S)
        self.ramp_s = period_s if ramp_s > period_s - LEAST_GAP_S else ramp_s
        self.velocity_step: Array = self.acceleration * period_s
        self._slack = TOLERANCE * (self.velocity + self.velocity_step)
        self._rate, self._half_step = 1.0 / period_s, 0.5 * self.velocity_step
        self._eight_over_unit = 8.0 * self._rate / self.velocity_step

    def limit(
        self, position: Array, velocity: Array, targets: Array, share: float = 1.0
    ) -> tuple[Array, Array]:
        """Return targets and their velocities (R, J), moved as little as the limits ask for.

        Args:
            position: (J,) the control point before. velocity: (J,) its velocity.
            targets: (R, J) what is asked for, one per period.
            share: of the velocity limits that holds now.
        """
        starts = np.concatenate([position[None], targets[:-1]])
        wanted = (targets - starts) * self._rate
        before = np.concatenate([velocity[None], wanted[:-1]])
        low, high = self.velocity_range(starts, before, share)
        sound = ((wanted >= low - self._slack) & (wanted <= high + self._slack)).all(axis=1)
        if sound.all():
            return targets, wanted
        passed = targets.copy()
        first = int(np.argmin(sound))
        position, velocity, bounds = starts[first], before[first], (low[first], high[first])
        for row in range(first, len(targets)):
            if row > first:
                bounds = self.velocity_range(position, velocity, share)
            position, velocity = self._limit_one(position, targets[row], *bounds)
            passed[row], wanted[row] = position, velocity
        return passed, wanted

    def _limit_one(
        self, position: Array, target: Array, low: Array, high: Array
    ) -> tuple[Array, Array]:
        wanted = (target - position) * self._rate
        sound = (wanted >= low - self._slack) & (wanted <= high + self._slack)
        moved = position + self.period_s * np.clip(wanted, low, high)
        passed = np.where(sound, target, moved)
        return passed, (passed - position) * self._rate

    def brake(self, velocity: Array) -> Array:
        """Return the velocities (..., J) one period on, on the fastest way to rest."""
        slower = np.maximum(np.abs(velocity) - self.velocity_step, 0.0)
        return np.asarray(np.copysign(slower, velocity))

    def braking(self, position: Array, velocity: Array) -> Array:
        """Return the control points (n, ..., J), n >= 1, that come to rest; the last two agree."""
        speed = np.abs(velocity)
        num = max(1, math.ceil(float((speed / self.velocity_step).max()) - ROUNDING))
        if num == 1:
            return position[None]
        row = np.arange(1, num + 1).reshape(-1, *(1,) * velocity.ndim)
        slower = np.maximum(speed - row * self.velocity_step, 0.0)
        slower[-1] = 0.0
        way: Array = np.cumsum(slower, axis=0)
        way *= np.sign(velocity) * self.period_s
        way += position
        return way

    def velocity_range(
        self, position: Array, velocity: Array, share: float = 1.0
    ) -> tuple[Array, Array]:
        """Return the velocities (..., J) from which every limit can be kept from now on."""
        slowest, fastest = velocity - self.velocity_step, velocity + self.velocity_step
        most = self.velocity * share
        down, up = self._stoppable(np.stack([position - self.lower, self.upper - position]))
        low, high = np.maximum(-most, -down), np.minimum(most, up)
        # A joint that has become too fast, because the share fell, slows down as fast as it may.
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
        room = np.maximum(distance, 0.0)
        n = np.floor(0.5 * (np.sqrt(1.0 + self._eight_over_unit * room) - 1.0))
        speed: Array = room * self._rate / (n + 1.0) + self._half_step * n
        return speed

    def exceeded(
        self,
        position: Array,
        velocity: Array,
        target: Array,
        passed: Array,
        share: float = 1.0,
    ) -> dict[str, int]:
        """Return which limits kept a target (J,) from passing: kind -> the first joint's column.

        Args:
            position, velocity: (J,) the control point before. passed: (J,) what passed instead.
            share: of the velocity limits that holds now.
        """
        wanted = (target - position) * self._rate
        moved = passed != target
        outside = (target < self.lower) | (target > self.upper)
        too_fast = np.abs(wanted) > self.velocity * share + self._slack
        too_sudden = np.abs(wanted - velocity) > self.velocity_step + self._slack
        # What is neither could not have stopped before the limit.
        found = {
            "position": moved & (outside | ~(too_fast | too_sudden)),
            "velocity": moved & too_fast,
            "acceleration": moved & too_sudden,
        }
        return {kind: int(np.argmax(where)) for kind, where in found.items() if where.any()}
