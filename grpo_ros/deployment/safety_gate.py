"""Safety gate: the only way to the wire.

Every joint target passes here. What is sound and within limits passes bit for bit; what is sound
but too far or too fast is moved to the nearest admissible target; what is not sound is refused and
the joints come to rest. Whatever goes in, the targets that come out keep the position, velocity
and acceleration limits, in differences per control period:

    v_k = (q_k - q_{k-1}) / T,  |v_k| <= v_max,  |v_k - v_{k-1}| <= a_max T,
    lower <= q_k <= upper.

A target is admissible only if from it the joint can still stop before its position limit; that is
why braking begins in time and no limit has to be given up for another.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits
from grpo_ros.errors import ContractError

Array = npt.NDArray[np.float64]
TOLERANCE = 1e-6
"""Share of a limit by which a target may exceed it and still pass unchanged (rounding)."""
POSITION_TOLERANCE = 1e-9

Kind = Literal[
    "closed", "names", "width", "not_finite", "position", "velocity", "acceleration", "gripper"
]


@dataclasses.dataclass(frozen=True)
class Intervention:
    """What the gate did not let pass as it came, and why."""

    kind: Kind
    reason: str


@dataclasses.dataclass(frozen=True)
class Gated:
    """What may be sent.

    Attributes:
        points: (R, J) float64 joint targets, one per control period; empty where the gate is shut.
        interventions: on the first point, or on the request as a whole.
    """

    points: Array
    interventions: tuple[Intervention, ...] = ()


class SafetyGate:
    """Limits the stream of joint targets of one arm.

    Args:
        limits: of the joints that pass here, in order.
        period_s: T, time between two targets.
    """

    def __init__(self, limits: Sequence[JointLimits], period_s: float) -> None:
        if not limits or period_s <= 0.0:
            raise ContractError(
                f"a gate for {len(limits)} joints and a period of {period_s} s",
                expected="at least one joint and a period above 0",
            )
        self.joint_names = tuple(limit.name for limit in limits)
        self.period_s = period_s
        self.lower, self.upper, self.velocity, acceleration = (
            np.array([getattr(limit, name) for limit in limits], dtype=np.float64)
            for name in ("lower", "upper", "velocity", "acceleration")
        )
        self.velocity_step: Array = acceleration * period_s
        if (
            not (np.isfinite(self.lower) & np.isfinite(self.upper)).all()
            or not (
                (self.velocity > 0) & (self.velocity_step > 0) & (self.lower < self.upper)
            ).all()
        ):
            raise ContractError(
                f"limits of joints {list(self.joint_names)}",
                expected="finite positions with lower < upper, velocity and acceleration above 0",
            )
        self.epoch = 0
        self.is_open = False
        self.counts: Counter[str] = Counter()
        self._position: Array = np.zeros(len(limits))
        self._velocity: Array = np.zeros(len(limits))

    # ---------------------------------------------------------------- opening and closing

    def open(self, position: Array) -> int:
        """Begin a new epoch at rest at the measured position (J,); return the epoch.

        Raises:
            ContractError: the position is not finite or not J numbers.
        """
        if np.shape(position) != self._position.shape or not np.isfinite(position).all():
            raise ContractError(
                f"gate opened at position {np.asarray(position).tolist()}",
                expected=f"{len(self.joint_names)} finite numbers",
            )
        self._position = np.array(position, dtype=np.float64)
        self._velocity = np.zeros_like(self._position)
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
    def position(self) -> Array:
        """The target (J,) that was let through last, rad or m."""
        return self._position.copy()

    @property
    def is_at_rest(self) -> bool:
        """Whether the last target equals the one before."""
        return not self._velocity.any()

    # ---------------------------------------------------------------- targets

    def admit(self, names: Sequence[str], points: Array) -> Gated:
        """Let targets through; the first counts as sent now, the others as a preview.

        Args:
            names: joint of each column; has to be `joint_names`.
            points: (R, J) float64, one per control period from now.
        """
        if not self.is_open:
            return Gated(self._no_points(), self._count("closed", "the gate is closed"))
        points = np.asarray(points, dtype=np.float64)
        with np.errstate(over="ignore"):  # hostile targets may overflow; clipping follows
            return self._admit(names, points)

    def _admit(self, names: Sequence[str], points: Array) -> Gated:
        if tuple(names) != self.joint_names:
            reason = f"joints {list(names)}, expected {list(self.joint_names)}"
            return Gated(self.hold(), self._count("names", reason))
        if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] != len(self.joint_names):
            reason = f"targets of shape {points.shape}, expected (R, {len(self.joint_names)})"
            return Gated(self.hold(), self._count("width", reason))
        finite = np.asarray(np.isfinite(points).all(axis=1))
        if not finite[0]:
            reason = f"target {points[0].tolist()} is not finite"
            return Gated(self.hold(), self._count("not_finite", reason))
        usable = points if finite.all() else points[: int(np.argmin(finite))]
        passed = np.empty_like(usable)
        position, velocity = self._position, self._velocity
        for row, target in enumerate(usable):
            position, velocity = self._limit(position, velocity, target)
            passed[row] = position
            if row == 0:
                first = position, velocity
        is_unchanged = np.array_equal(passed[0], usable[0])
        interventions = () if is_unchanged else self._judge(usable[0])
        self._position, self._velocity = first
        return Gated(passed, interventions)

    def hold(self) -> Array:
        """Return targets (R, J) that bring the joints to rest; the first counts as sent now."""
        if not self.is_open:
            return self._no_points()
        position, velocity = self._position, self._velocity
        points = []
        while True:
            position, velocity = self._brake(position, velocity)
            points.append(position)
            if len(points) == 1:
                first = position, velocity
            if not velocity.any():
                break
        self._position, self._velocity = first
        return np.stack(points)

    def admit_gripper(
        self, position: float, effort: float, limit: JointLimits
    ) -> tuple[bool, tuple[Intervention, ...]]:
        """Return whether a gripper command within its limits may be sent; it is never changed."""
        if not self.is_open:
            return False, self._count("closed", "the gate is closed")
        slack = POSITION_TOLERANCE
        sound = np.isfinite(position) and np.isfinite(effort)
        in_range = sound and limit.lower - slack <= position <= limit.upper + slack
        if not in_range or not 0.0 <= effort <= limit.effort * (1.0 + TOLERANCE):
            reason = (
                f"gripper to {position} m with {effort} N, expected "
                f"[{limit.lower}, {limit.upper}] m and at most {limit.effort} N"
            )
            return False, self._count("gripper", reason)
        return True, ()

    # ---------------------------------------------------------------- limits

    def _limit(self, position: Array, velocity: Array, target: Array) -> tuple[Array, Array]:
        """Return the target and its velocity, moved as little as the limits ask for."""
        wanted = (target - position) / self.period_s
        low, high = self._velocity_range(position, velocity)
        slack = TOLERANCE * (self.velocity + self.velocity_step)
        edge = POSITION_TOLERANCE
        sound = (wanted >= low - slack) & (wanted <= high + slack)
        sound &= (target >= self.lower - edge) & (target <= self.upper + edge)
        if sound.all():
            return target.copy(), wanted
        moved, limited = self._move(position, np.clip(wanted, low, high))
        return np.where(sound, target, moved), np.where(sound, wanted, limited)

    def _brake(self, position: Array, velocity: Array) -> tuple[Array, Array]:
        slowest, fastest = velocity - self.velocity_step, velocity + self.velocity_step
        return self._move(position, np.clip(0.0, slowest, fastest))

    def _move(self, position: Array, velocity: Array) -> tuple[Array, Array]:
        moved = position + velocity * self.period_s
        # Rounding only: the velocity range already ends where the position limit does.
        slack = POSITION_TOLERANCE
        moved = np.where((moved > self.upper) & (moved < self.upper + slack), self.upper, moved)
        moved = np.where((moved < self.lower) & (moved > self.lower - slack), self.lower, moved)
        return moved, velocity

    def _velocity_range(self, position: Array, velocity: Array) -> tuple[Array, Array]:
        """Return the velocities (J,) from which every limit can be kept from now on."""
        slowest, fastest = velocity - self.velocity_step, velocity + self.velocity_step
        low = np.maximum(-self.velocity, -self._stoppable(position - self.lower))
        high = np.minimum(self.velocity, self._stoppable(self.upper - position))
        # A joint that starts outside its limits, or too fast, returns as fast as it may.
        return (
            np.minimum(np.maximum(low, slowest), fastest),
            np.maximum(np.minimum(high, fastest), slowest),
        )

    def _stoppable(self, distance: Array) -> Array:
        """Return the largest velocity (J,) from which a joint stops within `distance` (J,).

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

    def _judge(self, target: Array) -> tuple[Intervention, ...]:
        """Count and name what is wrong with a target."""
        wanted = (target - self._position) / self.period_s
        change = np.abs(wanted - self._velocity)
        low, high = self._velocity_range(self._position, self._velocity)
        slack = TOLERANCE * (self.velocity + self.velocity_step)
        unstoppable = (wanted > high + slack) | (wanted < low - slack)
        outside = (target < self.lower - POSITION_TOLERANCE) | (
            target > self.upper + POSITION_TOLERANCE
        )
        too_fast = np.abs(wanted) > self.velocity + slack
        too_sudden = change > self.velocity_step + slack
        found: list[Intervention] = []
        if (outside | (unstoppable & ~too_fast & ~too_sudden)).any():
            column = int(np.argmax(outside | (unstoppable & ~too_fast & ~too_sudden)))
            found += self._count("position", self._describe(column, target, "to stop within"))
        if too_fast.any():
            column = int(np.argmax(too_fast))
            found += self._count("velocity", self._describe(column, target, "to reach"))
        if too_sudden.any():
            column = int(np.argmax(too_sudden))
            found += self._count("acceleration", self._describe(column, target, "to jump to"))
        return tuple(found)

    def _describe(self, column: int, target: Array, verb: str) -> str:
        return (
            f"joint '{self.joint_names[column]}' was {verb} {target[column]:.6f} from "
            f"{self._position[column]:.6f} at {self._velocity[column]:.4f}/s; limits: position "
            f"[{self.lower[column]:.4f}, {self.upper[column]:.4f}], velocity "
            f"{self.velocity[column]:.4f}, acceleration "
            f"{self.velocity_step[column] / self.period_s:.4f}"
        )

    def _count(self, kind: Kind, reason: str) -> tuple[Intervention, ...]:
        self.counts[kind] += 1
        return (Intervention(kind, reason),)

    def _no_points(self) -> Array:
        return np.zeros((0, len(self.joint_names)))
