"""Drives a gate with anything at all, and follows the arm that obeys what was let through."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.curve import Array, Curve
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.safety.limiter import TOLERANCE
from grpo_ros.deployment.safety.stream_gate import Gated

DT = 1e-3
"""Period of the controller that follows, s."""
Operation = Callable[[SafetyGate], Gated]


def sampled(curve: Curve, times: Array) -> Array:
    """Return positions (S, J) of a curve: the cubic Hermite spline through its knots."""
    knots = np.clip(np.searchsorted(curve.times, times, side="right") - 1, 0, None)
    row = np.minimum(knots, len(curve.times) - 2)
    span = np.diff(curve.times)[row][:, None]
    s = np.clip((times - curve.times[row])[:, None] / span, 0.0, 1.0)
    p0, p1 = curve.positions[row], curve.positions[row + 1]
    v0, v1 = span * curve.velocities[row], span * curve.velocities[row + 1]
    h = s * s * (3.0 - 2.0 * s)
    return p0 + (p1 - p0) * h + s * (1.0 - s) ** 2 * v0 - s * s * (1.0 - s) * v1


def bounds(limits: Sequence[JointLimits]) -> list[Array]:
    """Return lower, upper, velocity, acceleration and jerk, each (J,)."""
    names = ("lower", "upper", "velocity", "acceleration", "jerk")
    return [np.array([getattr(limit, name) for limit in limits]) for name in names]


class Follower:
    """Checks at 1 kHz what an arm does that gets a gate's messages, one per period.

    The arm follows each curve from its stamp on until the next one replaces it; where no other
    comes, to its end. So whatever is sent later, the path of one curve beyond its first period is
    that of a server that died: the whole of every curve is checked, together with the end of the
    one before.

    Finite differences are means over a sample period, so limits on derivatives hold for them
    as they are. What they may exceed: the gate's rounding share e = TOLERANCE (v + a T) of
    velocity, which is e / T of acceleration and 2 e / (T tau) of jerk; and rounding of positions
    up to 8 rad, 2e-15, which is 4 times that over 1e-6 s^2, and 8 times that over 1e-9 s^3, twice
    for the spline.

    Args:
        limits: of the joints. start: where the gate is opened, at rest.
    """

    def __init__(
        self, limits: Sequence[JointLimits], period_s: float, ramp_s: float, start: Array
    ) -> None:
        self.lower, self.upper, *self.most = bounds(limits)
        self.lower, self.upper = np.minimum(self.lower, start), np.maximum(self.upper, start)
        self.period_s = period_s
        share = TOLERANCE * (self.most[0] + self.most[1] * period_s)
        self.slack = (
            share + 1e-11,
            share / period_s + 1e-7,
            2.0 * share / period_s / ramp_s + 1e-4,
        )
        self.before = np.tile(start, (4, 1))
        self.curve: Curve | None = None

    def follow(self, curve: Curve) -> None:
        """Check one message."""
        last = self.curve
        first_position, first_velocity = curve.sample(0.0)
        if last is not None:
            position, velocity = last.sample(self.period_s)
            np.testing.assert_allclose(first_position, position, rtol=0.0, atol=1e-9)
            np.testing.assert_allclose(first_velocity, velocity, rtol=0.0, atol=1e-9)
        times = np.arange(0.0, curve.end_s + 4.5 * DT, DT)
        path = sampled(curve, times)
        self.check(np.vstack([self.before, path]))
        assert np.isfinite(curve.positions).all() and not curve.velocities[-1].any()
        assert (np.diff(curve.times) > 0.5e-4).all(), "knots that a controller may take for one"
        num = round(self.period_s / DT)
        self.before = np.vstack([self.before, sampled(curve, DT * np.arange(num))])[-4:]
        self.curve = curve

    def check(self, path: Array) -> None:
        """Check a path sampled at 1 kHz."""
        assert (path >= self.lower - 1e-8).all() and (path <= self.upper + 1e-8).all()
        for order, (most, slack) in enumerate(zip(self.most, self.slack, strict=True), start=1):
            found = np.abs(np.diff(path, order, axis=0)).max(axis=0) / DT**order
            assert (found <= most + slack).all(), (order, found - most, slack)


# ---------------------------------------------------------------- hostile input

SPECIAL = (0.0, -0.0, 5e-324, 1e-300, 1e6, 1e308, -1e308, np.inf, -np.inf, np.nan)
NO_NUMBERS = (
    None,
    "all of them",
    np.array([["1.0", "2.0"]]),
    np.array([[1.0, 2.0 + 1.0j]]),
    np.array([[True, False]]),
    np.array([[object()]], dtype=object),
    [[10**400]],
    [[1.0], [2.0, 3.0]],
    [],
    7.0,
)
KINDS = ("path", "far", "jump", "wild", "special", "whole", "shape", "names", "no_numbers", "hold",
         "coast", "reopen", "share", "again")  # fmt: skip


@st.composite
def operations(draw: st.DrawFn, kinds: Sequence[str] = KINDS, most: int = 30) -> list[tuple]:
    """Draw what is done to a gate, in turn: (kind, seed, rows)."""
    one = st.tuples(st.sampled_from(kinds), st.integers(0, 2**32 - 1), st.integers(1, 16))
    return draw(st.lists(one, min_size=1, max_size=most))


def perform(gate: SafetyGate, operation: tuple, start: Array) -> Gated | None:
    """Do one thing to a gate; None where nothing is sent by it."""
    kind, seed, rows = operation
    random = np.random.default_rng(seed)
    limiter, size = gate.limiter, len(gate.joint_names)
    if kind == "hold":
        return gate.hold()
    if kind == "coast":
        return gate.coast()
    if kind == "share":
        gate.speed_share = random.choice([0.0, 0.01, 0.3, 0.7, 1.0])
        return None
    if kind == "reopen":
        if not gate.is_at_rest:
            return gate.hold()
        position = gate.position
        gate.close()
        assert len(gate.admit(gate.joint_names, position[None]).points) == 0
        assert len(gate.hold().points) == len(gate.coast().points) == 0
        gate.open(position)
        return None
    if kind == "names":
        return gate.admit(gate.joint_names[::-1], gate.position[None])
    if kind == "no_numbers":
        return gate.admit(gate.joint_names, NO_NUMBERS[seed % len(NO_NUMBERS)])  # type: ignore[arg-type]
    if kind == "shape":
        shape = [(rows, size + 1), (0, size), (size,), (rows, 0), (1, rows, size), ()][seed % 6]
        return gate.admit(gate.joint_names, np.zeros(shape))
    if kind == "again":
        return gate.admit(gate.joint_names, gate.plan[:rows] if len(gate.plan) else start[None])
    return gate.admit(gate.joint_names, _targets(kind, random, rows, gate, limiter.velocity_step))


def _targets(
    kind: str, random: np.random.Generator, rows: int, gate: SafetyGate, change: Array
) -> Array:
    """Return (rows, J) targets: a path at the edge of the limits, or none that could be one."""
    size, period_s = len(change), gate.period_s
    if kind == "path":
        pushes = random.choice([-1.0, 1.0, 0.0, 1.0 + 5e-10], size=(rows, size)) * change
        velocity = gate.velocity + np.cumsum(pushes, axis=0)
        return np.asarray(gate.position + np.cumsum(velocity, axis=0) * period_s)
    if kind == "far":
        way = np.where(gate.velocity == 0.0, random.choice([-1.0, 1.0], size), gate.velocity)
        return np.asarray(gate.position + 1e3 * np.sign(way) * np.ones((rows, 1)))
    if kind == "whole":
        return random.integers(-3, 4, size=(rows, size))
    scale = {"jump": 0.1, "wild": 10.0 ** random.uniform(-8.0, 5.0), "special": 0.01}[kind]
    points = gate.position + scale * random.standard_normal((rows, size))
    if kind == "special":
        where = random.random((rows, size)) < 0.2
        points[where] = random.choice(SPECIAL, where.sum())
    with np.errstate(over="ignore"):
        return points.astype(random.choice([np.float64, np.float32, np.longdouble]))
