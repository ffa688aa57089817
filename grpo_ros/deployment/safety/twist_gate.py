"""The gate of a base: twists within speed and acceleration, always with a way to standstill."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.deployment.safety.limiter import ROUNDING, TOLERANCE
from grpo_ros.deployment.safety.stream_gate import Array, Gated, Intervention, StreamGate
from grpo_ros.errors import ContractError

COMPONENTS = ("linear_x", "angular_z")


class TwistGate(StreamGate):
    """Limits a stream of twists (linear_x in m/s, angular_z in rad/s), one per control period.

    As `SafetyGate`, with twists in place of joint targets: |u_k| <= u_max and
    |u_k - u_{k-1}| <= a_max T. It knows nothing of obstacles: a base that must not touch anything
    needs a collision monitor below, as Nav2 has one.

    Args:
        speed: (2,) largest magnitudes. acceleration: (2,) largest changes per second.
        period_s: T.

    Raises:
        ContractError: a limit is not finite and above 0.
    """

    def __init__(self, speed: Array, acceleration: Array, period_s: float) -> None:
        limits = np.concatenate([speed, acceleration, [period_s]])
        if not (np.isfinite(limits) & (limits > 0.0)).all():
            raise ContractError(
                f"limits of a base: speed {speed}, acceleration {acceleration}, period {period_s}",
                expected="finite numbers above 0",
            )
        super().__init__(COMPONENTS, period_s)
        self.speed, self.step = np.array(speed), np.array(acceleration) * period_s
        self._twist: Array = np.zeros(2)

    def open(self, position: Array | None = None) -> int:
        """Begin a new epoch at standstill; return the epoch."""
        self._twist = np.zeros(2)
        return self._begin()

    def meet(self, twist: Array) -> None:
        """Go on from a twist (2,): the one that the base has now, between two of its rows."""
        self._twist = np.array(twist)

    @property
    def is_at_rest(self) -> bool:
        """Whether the base stands still, and what was sent leaves it so."""
        return not (self._twist.any() or self._plan.any())

    # ---------------------------------------------------------------- inside

    def _let_through(self, points: Array) -> Gated:
        passed, twist = np.empty_like(points), self._twist
        for row, wanted in enumerate(points):
            twist = self._limit(twist, wanted)
            passed[row] = twist
        why: tuple[Intervention, ...] = ()
        if not np.array_equal(passed[0], points[0]):
            is_fast = bool((np.abs(points[0]) > self.speed * self.speed_share).any())
            why = self._count(
                "velocity" if is_fast else "acceleration",
                f"twist {points[0].tolist()} was asked for after {self._twist.tolist()}; limits: "
                f"speed {(self.speed * self.speed_share).tolist()}, change {self.step.tolist()}",
            )
        return self._send(np.concatenate([passed, self._braking_from(twist)]), len(passed), why)

    def _limit(self, before: Array, wanted: Array) -> Array:
        most, slack = self.speed * self.speed_share, TOLERANCE * (self.speed + self.step)
        low, high = before - self.step, before + self.step
        low, high = (
            np.minimum(np.maximum(-most, low), high),
            np.maximum(np.minimum(most, high), low),
        )
        sound = (wanted >= low - slack) & (wanted <= high + slack)
        return np.where(sound, wanted, np.clip(wanted, low, high))

    def _braking(self) -> Array:
        return self._braking_from(self._twist)

    def _still(self) -> Array:
        return np.zeros((1, 2))

    def _braking_from(self, twist: Array) -> Array:
        """Return the twists (n, 2), n >= 1, that bring the base to a standstill."""
        speed = np.abs(twist)
        num = max(1, math.ceil(float((speed / self.step).max()) - ROUNDING))
        slower = np.maximum(speed - np.arange(1, num + 1)[:, None] * self.step, 0.0)
        slower[-1] = 0.0
        return np.asarray(slower * np.sign(twist))

    def _take(self, points: Array) -> Callable[[], Curve]:
        draw = functools.partial(_ramps, self._twist, points, self.period_s)
        self._twist = points[0]
        return draw


def _ramps(twist: Array, points: Array, period_s: float) -> Curve:
    """Return the motion in which each period ramps from the twist before to its own."""
    twists = np.concatenate([twist[None], points])
    way = 0.5 * period_s * (twists[1:] + twists[:-1])
    positions = np.concatenate([np.zeros((1, 2)), np.cumsum(way, axis=0)])
    times = period_s * np.arange(len(twists), dtype=np.float64)
    return Curve(times, positions, twists)
