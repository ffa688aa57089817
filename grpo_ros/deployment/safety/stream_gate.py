"""What the gates of arms and of bases share: epochs, the plan on the wire, what is no command.

A stream of commands passes, one row per control period. Each answer is the row that counts as
sent now, what was asked for beyond it, and a way to rest; see `SafetyGate` and `TwistGate`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.deployment.safety.limiter import POSITION_TOLERANCE
from grpo_ros.errors import ContractError

Array = npt.NDArray[np.float64]


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
            empty where the gate is shut. Of a base: twists.
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


class StreamGate(abc.ABC):
    """Lets a stream of rows through, each with a way to rest of its own.

    Args:
        names: of the columns.
        period_s: T, time between two rows.
    """

    def __init__(self, names: tuple[str, ...], period_s: float) -> None:
        self.joint_names, self.period_s = names, period_s
        self.epoch = 0
        self.is_open = False
        self.counts: Counter[str] = Counter()
        self._speed_share = 1.0
        self._plan: Array = self._no_points()

    # ---------------------------------------------------------------- for subclasses

    @abc.abstractmethod
    def _let_through(self, points: Array) -> Gated:
        """Return what may be sent of finite rows (R, J), R >= 1; see `_send`."""

    @abc.abstractmethod
    def _braking(self) -> Array:
        """Return the rows (n, J), n >= 1, that lead to rest from the present one."""

    @abc.abstractmethod
    def _still(self) -> Array:
        """Return the row (1, J) of standing where the plan has ended."""

    @abc.abstractmethod
    def _take(self, points: Array) -> Callable[[], Curve]:
        """Count the first row as sent; return what draws the motion of them all."""

    @property
    @abc.abstractmethod
    def is_at_rest(self) -> bool:
        """Whether the motion that was sent has ended: nothing moves any more, or is to."""

    # ---------------------------------------------------------------- opening and closing

    def _begin(self) -> int:
        """Begin a new epoch at rest; return the epoch."""
        self._plan = self._no_points()
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
        """The rows (M, J) still to come of what was sent last; M may be 0."""
        return self._plan.copy()

    @property
    def speed_share(self) -> float:
        """Share of the velocity limits that holds now, within [0, 1]; see `check_share`."""
        return self._speed_share

    @speed_share.setter
    def speed_share(self, share: float) -> None:
        self._speed_share = check_share(share)

    # ---------------------------------------------------------------- rows

    def admit(self, names: Sequence[str], points: Array) -> Gated:
        """Let rows through; the first counts as sent now, the others as a preview.

        Args:
            names: of the columns; have to be `joint_names`.
            points: (R, J) float64, one per control period from now.
        """
        if not self.is_open:
            refused = self._count("closed", "the gate is closed")
            return Gated(self._no_points(), interventions=refused)
        if tuple(names) != self.joint_names:
            return self._refuse("names", f"{list(names)}, expected {list(self.joint_names)}")
        try:
            numbers = real_numbers(points)
        except (TypeError, ValueError) as problem:
            return self._refuse("width", f"what was asked is no array of numbers ({problem})")
        num = len(self.joint_names)
        if numbers.ndim != 2 or numbers.shape[0] == 0 or numbers.shape[1] != num:
            return self._refuse("width", f"shape {numbers.shape}, expected (R, {num})")
        finite = np.isfinite(numbers)
        if not finite.all():
            numbers = numbers[: int(np.argmin(finite.all(axis=1)))]
        if not len(numbers):
            return self._refuse("not_finite", f"{np.asarray(points)[0].tolist()} is not finite")
        with np.errstate(over="ignore", invalid="ignore"):  # hostile rows may overflow
            return self._let_through(numbers)

    def hold(self) -> Gated:
        """Come to rest, beginning now; the first row counts as sent."""
        if not self.is_open:
            return Gated(self._no_points())
        return self._send(self._braking(), 0, ())

    def coast(self) -> Gated:
        """Let one period pass along what was sent; it ends at rest by itself."""
        if not self.is_open:
            return Gated(self._no_points())
        return self._send(self._plan if len(self._plan) else self._still(), 0, ())

    # ---------------------------------------------------------------- inside

    def _send(
        self, points: Array, num_asked: int, interventions: tuple[Intervention, ...]
    ) -> Gated:
        """Count the first row as sent."""
        is_known = _agree(points, self._plan)
        draw = self._take(points)
        self._plan = points[1:]
        return Gated(points, num_asked, is_known, interventions, draw)

    def _refuse(self, kind: str, reason: str) -> Gated:
        interventions = self._count(kind, reason)
        return dataclasses.replace(self.hold(), interventions=interventions)

    def _count(self, kind: str, reason: str) -> tuple[Intervention, ...]:
        self.counts[kind] += 1
        return (Intervention(kind, reason),)

    def _no_points(self) -> Array:
        return np.zeros((0, len(self.joint_names)))


def _agree(points: Array, plan: Array) -> bool:
    """Whether two plans are the same motion, but for rounding."""
    return points.shape == plan.shape and bool((np.abs(points - plan) <= POSITION_TOLERANCE).all())


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
