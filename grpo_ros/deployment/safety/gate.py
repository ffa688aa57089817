"""Safety gate: the only way to the wire.

Every joint target passes here. What is sound and within limits passes bit for bit; what is sound
but too far, too fast or leads where the arm may not go is moved to the nearest admissible target;
what is not sound is refused and the joints come to rest. One invariant carries it all: at every
moment the gate holds a braking tail, from the present state to rest, that keeps every limit. A
target is let through only with a tail of its own; the old tail is what remains otherwise.

What is sent always ends with the tail: a controller that was given all of it stops the arm by
itself where the server dies at any moment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.curve import Curve, make_curve
from grpo_ros.deployment.safety.geometry import ArmGeometry
from grpo_ros.deployment.safety.limiter import (
    POSITION_TOLERANCE,
    TOLERANCE,
    ControlPointLimiter,
)
from grpo_ros.deployment.safety.stream_gate import Array, Gated, Intervention, StreamGate
from grpo_ros.errors import ContractError

SHARES = np.linspace(0.9375, 0.0, 16)
"""Tried in turn where a target cannot be let through: parts of the way from braking to it."""


class SafetyGate(StreamGate):
    """Limits the stream of joint targets of one arm.

    Args:
        limits: of the joints that pass here, in order.
        period_s: T, time between two targets.
        geometry: where the arm may go; None: anywhere within its joints' limits.
    """

    def __init__(
        self,
        limits: Sequence[JointLimits],
        period_s: float,
        geometry: ArmGeometry | None = None,
    ) -> None:
        self.limiter = ControlPointLimiter(limits, period_s)
        super().__init__(self.limiter.joint_names, period_s)
        self.geometry = geometry if geometry is not None and geometry.is_watching else None
        self._position: Array = np.zeros(len(limits))
        self._velocity: Array = np.zeros(len(limits))
        self._velocity_before: Array = np.zeros(len(limits))
        self._num_ahead, self._plan_share = 0, 1.0

    def open(self, position: Array) -> int:
        """Begin a new epoch at rest at a position (J,); return the epoch.

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
        self._velocity_before = np.zeros_like(self._position)
        if self.geometry is not None:
            self.geometry.open(self._position)
        return self._begin()

    @property
    def position(self) -> Array:
        """The control point (J,) that was let through last, rad or m."""
        return self._position.copy()

    @property
    def velocity(self) -> Array:
        """Its velocity (J,), rad/s or m/s."""
        return self._velocity.copy()

    @property
    def is_at_rest(self) -> bool:
        """Whether the motion that was sent has ended: nothing moves any more, or is to."""
        moves = self._velocity.any() or self._velocity_before.any()
        return not moves and bool((self._plan == self._position).all())

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
                f"gripper to {position} with {effort}, expected [{limit.lower}, {limit.upper}] "
                f"and at most {limit.effort}"
            )
            return False, self._count("gripper", reason)
        return True, ()

    # ---------------------------------------------------------------- inside

    def _let_through(self, points: Array) -> Gated:
        num_asked = self._num_ahead  # 0 unless it goes on along a chunk
        is_as_fast = self._speed_share >= self._plan_share
        if is_as_fast and np.array_equal(points, self._plan[:num_asked]):
            return self._send(self._plan, num_asked, ())
        passed, velocities = self.limiter.limit(
            self._position, self._velocity, points, self._speed_share
        )
        interventions: tuple[Intervention, ...] = ()
        if not np.array_equal(passed[0], points[0]):
            interventions = self._judge(points[0], passed[0])
        tails = self.limiter.braking(passed, velocities)
        if self.geometry is not None:
            free = self.geometry.admissible(self._position, passed, tails, is_chain=True)
            if not free.all():
                row = int(np.argmin(free))
                last, why = self._turned_away(passed, velocities, row, tails)
                return self._send(
                    np.concatenate([passed[:row], last]), row + 1, interventions + why
                )
        together = np.concatenate([passed, _trimmed(passed[-1], tails[:, -1])])
        return self._send(together, len(passed), interventions)

    def _turned_away(
        self, passed: Array, velocities: Array, row: int, tails: Array
    ) -> tuple[Array, tuple[Intervention, ...]]:
        """Return what may follow passed[:row]: the nearest free point with its tail.

        Velocities between that of braking and the one asked for keep the joints' limits, since
        those bound each joint's velocity by an interval. Braking itself is free: it was checked
        with the point before.
        """
        assert self.geometry is not None
        start = self._position if row == 0 else passed[row - 1]
        before = self._velocity if row == 0 else velocities[row - 1]
        why: tuple[Intervention, ...] = ()
        if row == 0:
            path = np.vstack([start, passed[:1], tails[:, 0]])
            why = self._count(*self.geometry.describe(path))
        allowed = self.geometry.allowed_after(passed[:row], tails[:, :row])
        slower = self.limiter.brake(before)
        tried = slower + SHARES[:, None] * (velocities[row] - slower)
        points = start + self.period_s * tried
        tails = self.limiter.braking(points, tried)
        free = self.geometry.admissible(start, points, tails, is_chain=False, allowed=allowed)
        free[-1] = True
        best = int(np.argmax(free))
        return np.vstack([points[best], _trimmed(points[best], tails[:, best])]), why

    def _braking(self) -> Array:
        return self.limiter.braking(self._position, self._velocity)

    def _still(self) -> Array:
        return self._position[None]

    def _send(
        self, points: Array, num_asked: int, interventions: tuple[Intervention, ...]
    ) -> Gated:
        self._num_ahead, self._plan_share = max(0, num_asked - 1), self._speed_share
        return super()._send(points, num_asked, interventions)

    def _take(self, points: Array) -> Callable[[], Curve]:
        draw = functools.partial(
            make_curve,
            self._position,
            self._velocity,
            self._velocity_before,
            points,
            self.period_s,
            self.limiter.ramp_s,
        )
        velocity = (points[0] - self._position) / self.period_s
        self._velocity_before, self._velocity = self._velocity, velocity
        self._position = points[0]
        if self.geometry is not None:
            self.geometry.take(self._position, self._braking())
        return draw

    def _judge(self, target: Array, passed: Array) -> tuple[Intervention, ...]:
        """Count and name what is wrong with a target that passed as another one."""
        limiter, share = self.limiter, self._speed_share
        before, velocity = self._position, self._velocity
        exceeded = limiter.exceeded(before, velocity, target, passed, share)
        found: list[Intervention] = []
        for kind, column in exceeded.items():
            reason = (
                f"joint '{self.joint_names[column]}' was asked to {target[column]:.6f} from "
                f"{before[column]:.6f} at {velocity[column]:.4f}/s; limits: "
                f"position [{limiter.lower[column]:.4f}, {limiter.upper[column]:.4f}], velocity "
                f"{limiter.velocity[column] * share:.4f}, acceleration "
                f"{limiter.acceleration[column]:.4f}"
            )
            found += self._count(kind, reason)
        return tuple(found)


def _trimmed(point: Array, tail: Array) -> Array:
    """Return the braking tail (n, J) after a point (J,) up to where it rests, n >= 1."""
    num = len(tail)
    while num > 2 and np.array_equal(tail[num - 3], tail[num - 1]):
        num -= 1
    return tail[:1] if num == 2 and np.array_equal(point, tail[1]) else tail[:num]
