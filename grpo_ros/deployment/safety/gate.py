"""Safety gate: the only way to the wire.

Every joint target passes here. What is sound and within limits passes bit for bit; what is sound
but too far, too fast or leads where the arm may not go is moved to the nearest admissible target;
what is not sound is refused and the joints come to rest. One invariant carries it all: at every
moment the gate holds a braking tail, from the present state to rest, that keeps every limit. A
target is let through only with a tail of its own; the old tail is what remains otherwise.

What is sent always ends with the tail, so a server that dies at any moment leaves an arm that
stops by itself.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.curve import Curve, make_curve
from grpo_ros.deployment.safety.geometry import ArmGeometry
from grpo_ros.deployment.safety.limiter import (
    POSITION_TOLERANCE,
    TOLERANCE,
    ControlPointLimiter,
)
from grpo_ros.errors import ContractError

Array = npt.NDArray[np.float64]
SHARES = np.linspace(0.9375, 0.0, 16)
"""Tried in turn where a target cannot be let through: parts of the way from braking to it."""


@dataclasses.dataclass(frozen=True)
class Intervention:
    """What the gate did not let pass as it came, and why.

    `kind` is closed, names, width, not_finite, position, velocity, acceleration, gripper,
    workspace, table, self_collision, singularity or tip_speed.
    """

    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Gated:
    """What may be sent.

    Attributes:
        points: (M, J) float64 control points to come, one per control period, the last at rest;
            empty where the gate is shut.
        num_asked: how many of them answer what was asked for; the others are the braking tail.
        is_known: whether it is the rest of what was sent before.
        interventions: on the first point, or on the request as a whole.
        draw: makes `curve`.
    """

    points: Array
    num_asked: int = 0
    is_known: bool = False
    interventions: tuple[Intervention, ...] = ()
    draw: Callable[[], Curve | None] = lambda: None

    @functools.cached_property
    def curve(self) -> Curve | None:
        """The motion that the points stand for, from now on; None where the gate is shut."""
        return self.draw()


class SafetyGate:
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
        self.joint_names, self.period_s = self.limiter.joint_names, period_s
        self.geometry = geometry if geometry is not None and geometry.is_watching else None
        self.epoch = 0
        self.is_open = False
        self._speed_share = 1.0
        self.counts: Counter[str] = Counter()
        self._position: Array = np.zeros(len(limits))
        self._velocity: Array = np.zeros(len(limits))
        self._velocity_before: Array = np.zeros(len(limits))
        self._plan: Array = self._no_points()
        self._num_ahead, self._plan_share = 0, 1.0

    # ---------------------------------------------------------------- opening and closing

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
        self._plan = self._no_points()
        if self.geometry is not None:
            self.geometry.open(self._position)
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
        """The control point (J,) that was let through last, rad or m."""
        return self._position.copy()

    @property
    def velocity(self) -> Array:
        """Its velocity (J,), rad/s or m/s."""
        return self._velocity.copy()

    @property
    def plan(self) -> Array:
        """The control points (M, J) still to come of what was sent last; M may be 0."""
        return self._plan.copy()

    @property
    def is_at_rest(self) -> bool:
        """Whether the motion that was sent has ended: nothing moves any more."""
        return not (self._velocity.any() or self._velocity_before.any())

    @property
    def speed_share(self) -> float:
        """Share of the velocity limits that holds now, within [0, 1]; see `check_share`."""
        return self._speed_share

    @speed_share.setter
    def speed_share(self, share: float) -> None:
        self._speed_share = check_share(share)

    # ---------------------------------------------------------------- targets

    def admit(self, names: Sequence[str], points: Array) -> Gated:
        """Let targets through; the first counts as sent now, the others as a preview.

        Args:
            names: joint of each column; has to be `joint_names`.
            points: (R, J) float64, one per control period from now.
        """
        if not self.is_open:
            refused = self._count("closed", "the gate is closed")
            return Gated(self._no_points(), interventions=refused)
        try:
            numbers = real_numbers(points)
        except (TypeError, ValueError) as problem:
            return self._refuse("width", f"targets are no array of numbers ({problem})")
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # hostile targets may overflow; clipping follows
            return self._admit(names, numbers)

    def hold(self) -> Gated:
        """Bring the joints to rest, beginning now; the first point counts as sent."""
        if not self.is_open:
            return Gated(self._no_points())
        return self._send(self.limiter.braking(self._position, self._velocity), 0, ())

    def coast(self) -> Gated:
        """Let one period pass along what was sent; it ends at rest by itself."""
        if not self.is_open:
            return Gated(self._no_points())
        return self._send(self._plan if len(self._plan) else self._position[None], 0, ())

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

    def _admit(self, names: Sequence[str], points: Array) -> Gated:
        if tuple(names) != self.joint_names:
            return self._refuse(
                "names", f"joints {list(names)}, expected {list(self.joint_names)}"
            )
        num_joints = len(self.joint_names)
        if points.ndim != 2 or points.shape[0] == 0 or points.shape[1] != num_joints:
            return self._refuse(
                "width", f"targets of shape {points.shape}, expected (R, {num_joints})"
            )
        num_asked = self._num_ahead  # 0 unless it goes on along a chunk
        is_as_fast = self._speed_share >= self._plan_share
        if is_as_fast and np.array_equal(points, self._plan[:num_asked]):
            return self._send(self._plan, num_asked, ())
        finite = np.isfinite(points)
        usable = points
        if not finite.all():
            usable = points[: int(np.argmin(finite.all(axis=1)))]
        if not len(usable):
            return self._refuse("not_finite", f"target {points[0].tolist()} is not finite")
        passed, velocities = self.limiter.limit(
            self._position, self._velocity, usable, self._speed_share
        )
        interventions: tuple[Intervention, ...] = ()
        if not np.array_equal(passed[0], usable[0]):
            interventions = self._judge(usable[0], passed[0])
        tails = self.limiter.braking(passed, velocities)
        if self.geometry is not None:
            free = self.geometry.admissible(self._position, passed, tails, is_chain=True)
            if not free.all():
                row = int(np.argmin(free))
                last, why = self._turned_away(passed, velocities, row, tails[:, row])
                return self._send(
                    np.concatenate([passed[:row], last]), row + 1, interventions + why
                )
        together = np.concatenate([passed, _trimmed(passed[-1], tails[:, -1])])
        return self._send(together, len(passed), interventions)

    def _turned_away(
        self, passed: Array, velocities: Array, row: int, tail: Array
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
            why = self._count(*self.geometry.describe(np.vstack([start, passed[:1], tail])))
        slower = self.limiter.brake(before)
        tried = slower + SHARES[:, None] * (velocities[row] - slower)
        points = start + self.period_s * tried
        tails = self.limiter.braking(points, tried)
        free = self.geometry.admissible(start, points, tails, is_chain=False)
        free[-1] = True
        best = int(np.argmax(free))
        return np.vstack([points[best], _trimmed(points[best], tails[:, best])]), why

    def _refuse(self, kind: str, reason: str) -> Gated:
        interventions = self._count(kind, reason)
        return dataclasses.replace(self.hold(), interventions=interventions)

    def _send(
        self,
        points: Array,
        num_asked: int,
        interventions: tuple[Intervention, ...],
    ) -> Gated:
        """Count the first point as sent."""
        is_known = _agree(points, self._plan)
        self._num_ahead, self._plan_share = max(0, num_asked - 1), self._speed_share
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
        self._position, self._plan = points[0], points[1:]
        return Gated(points, num_asked, is_known, interventions, draw)

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

    def _count(self, kind: str, reason: str) -> tuple[Intervention, ...]:
        self.counts[kind] += 1
        return (Intervention(kind, reason),)

    def _no_points(self) -> Array:
        return np.zeros((0, len(self.limiter.joint_names)))


def _agree(points: Array, plan: Array) -> bool:
    """Whether two plans are the same motion, but for rounding."""
    return points.shape == plan.shape and bool((np.abs(points - plan) <= POSITION_TOLERANCE).all())


def _trimmed(point: Array, tail: Array) -> Array:
    """Return the braking tail (n, J) after a point (J,) up to where it rests, n >= 1."""
    num = len(tail)
    while num > 2 and np.array_equal(tail[num - 3], tail[num - 1]):
        num -= 1
    return tail[:1] if num == 2 and np.array_equal(point, tail[1]) else tail[:num]


def real_numbers(points: object) -> Array:
    """Return points as float64.

    Raises:
        TypeError: they are no integers or floats. ValueError: they form no array.
    """
    array = np.asarray(points)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"of type {array.dtype}")
    return np.asarray(array, dtype=np.float64)


def check_share(share: float) -> float:
    """Return a share of the velocity limits, within [0, 1].

    What moves faster than a share that has just fallen slows down as fast as it may; the whole
    limits hold all the time.

    Raises:
        ContractError: it is not within [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ContractError(f"a speed share of {share}", expected="a number within [0, 1]")
    return float(share)
