"""The gate of a base: twists within speed and acceleration, always with a way to standstill."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.deployment.safety.gate import Gated, Intervention, check_share, real_numbers
from grpo_ros.deployment.safety.limiter import ROUNDING, TOLERANCE
from grpo_ros.errors import ContractError

Array = npt.NDArray[np.float64]
COMPONENTS = ("linear_x", "angular_z")


class TwistGate:
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

    joint_names = COMPONENTS

    def __init__(self, speed: Array, acceleration: Array, period_s: float) -> None:
        limits = np.concatenate([speed, acceleration, [period_s]])
        if not (np.isfinite(limits) & (limits > 0.0)).all():
            raise ContractError(
                f"limits of a base: speed {speed}, acceleration {acceleration}, period {period_s}",
                expected="finite numbers above 0",
            )
        self.speed, self.step = np.array(speed), np.array(acceleration) * period_s
        self.period_s = period_s
        self.epoch, self.is_open, self._speed_share = 0, False, 1.0
        self.counts: Counter[str] = Counter()
        self._twist: Array = np.zeros(2)
        self._plan: Array = np.zeros((0, 2))

    # ---------------------------------------------------------------- opening and closing

    def open(self, position: Array | None = None) -> int:
        """Begin a new epoch at standstill; return the epoch."""
        self._twist, self._plan = np.zeros(2), np.zeros((0, 2))
        self.is_open = True
        self.epoch += 1
        return self.epoch

    def close(self) -> int:
        """End the epoch: nothing of it may be sent any more; return the new epoch."""
        self.is_open = False
        self.epoch += 1
        return self.epoch

    def admits(self, epoch: int) -> bool:
        """Whether something made in `epoch` may still be sent."""
        return self.is_open and epoch == self.epoch

    @property
    def plan(self) -> Array:
        """The twists (M, 2) still to come of what was sent last; M may be 0."""
        return self._plan.copy()

    @property
    def is_at_rest(self) -> bool:
        """Whether the base stands still."""
        return not self._twist.any()

    @property
    def speed_share(self) -> float:
        """Share of the speeds that holds now, within [0, 1]; see `check_share`."""
        return self._speed_share

    @speed_share.setter
    def speed_share(self, share: float) -> None:
        self._speed_share = check_share(share)

    # ---------------------------------------------------------------- twists

    def admit(self, names: Sequence[str], points: Array) -> Gated:
        """Let twists (R, 2) through; the first counts as sent now, the others as a preview."""
        if not self.is_open:
            refused = self._count("closed", "the gate is closed")
            return Gated(np.zeros((0, 2)), interventions=refused)
        if tuple(names) != COMPONENTS:
            return self._refuse("names", f"components {list(names)}, expected {list(COMPONENTS)}")
        try:
            points = real_numbers(points)
        except (TypeError, ValueError) as problem:
            return self._refuse("width", f"twists are no array of numbers ({problem})")
        if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] != 2:
            return self._refuse("width", f"twists of shape {points.shape}, expected (R, 2)")
        finite = np.asarray(np.isfinite(points).all(axis=1))
        if not finite[0]:
            return self._refuse("not_finite", f"twist {points[0].tolist()} is not finite")
        usable = points if finite.all() else points[: int(np.argmin(finite))]
        passed, twist = np.empty_like(usable), self._twist
        for row, wanted in enumerate(usable):
            twist = self._limit(twist, wanted)
            passed[row] = twist
        why: tuple[Intervention, ...] = ()
        if not np.array_equal(passed[0], usable[0]):
            is_fast = bool((np.abs(usable[0]) > self.speed * self.speed_share).any())
            why = self._count(
                "velocity" if is_fast else "acceleration",
                f"twist {usable[0].tolist()} was asked for after {self._twist.tolist()}; limits: "
                f"speed {(self.speed * self.speed_share).tolist()}, change {self.step.tolist()}",
            )
        return self._send(np.concatenate([passed, self._braking(twist)]), len(passed), why)

    def hold(self) -> Gated:
        """Come to a standstill, beginning now; the first twist counts as sent."""
        if not self.is_open:
            return Gated(np.zeros((0, 2)))
        return self._send(self._braking(self._twist), 0, ())

    def coast(self) -> Gated:
        """Let one period pass along what was sent; it ends at a standstill by itself."""
        if not self.is_open:
            return Gated(np.zeros((0, 2)))
        return self._send(self._plan if len(self._plan) else np.zeros((1, 2)), 0, ())

    # ---------------------------------------------------------------- inside

    def _limit(self, before: Array, wanted: Array) -> Array:
        most, slack = self.speed * self.speed_share, TOLERANCE * (self.speed + self.step)
        low, high = before - self.step, before + self.step
        low, high = (
            np.minimum(np.maximum(-most, low), high),
            np.maximum(np.minimum(most, high), low),
        )
        sound = (wanted >= low - slack) & (wanted <= high + slack)
        return np.where(sound, wanted, np.clip(wanted, low, high))

    def _braking(self, twist: Array) -> Array:
        """Return the twists (n, 2), n >= 1, that bring the base to a standstill."""
        speed = np.abs(twist)
        num = max(1, math.ceil(float((speed / self.step).max()) - ROUNDING))
        slower = np.maximum(speed - np.arange(1, num + 1)[:, None] * self.step, 0.0)
        slower[-1] = 0.0
        return np.asarray(slower * np.sign(twist))

    def _send(self, points: Array, num_asked: int, why: tuple[Intervention, ...]) -> Gated:
        is_known = np.array_equal(points, self._plan)
        draw = functools.partial(_ramps, self._twist, points, self.period_s)
        self._twist, self._plan = points[0], points[1:]
        return Gated(points, num_asked, is_known, why, draw)

    def _refuse(self, kind: str, reason: str) -> Gated:
        why = self._count(kind, reason)
        return dataclasses.replace(self.hold(), interventions=why)

    def _count(self, kind: str, reason: str) -> tuple[Intervention, ...]:
        self.counts[kind] += 1
        return (Intervention(kind, reason),)


def _ramps(twist: Array, points: Array, period_s: float) -> Curve:
    """Return the motion in which each period ramps from the twist before to its own."""
    twists = np.concatenate([twist[None], points])
    way = 0.5 * period_s * (twists[1:] + twists[:-1])
    positions = np.concatenate([np.zeros((1, 2)), np.cumsum(way, axis=0)])
    times = period_s * np.arange(len(twists), dtype=np.float64)
    return Curve(times, positions, twists)
