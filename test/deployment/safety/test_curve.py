"""The curve is the twice averaged line, and what a stock controller makes of its knots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.curve import Array, Curve, make_curve
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.simulation.trajectory_follower import (
    SECOND_NS,
    Motion,
    TrajectoryFollower,
    Waypoints,
)

PERIODS = (0.002, 0.005, 0.02, 0.05)
SHARES = (0.08, 0.5, 0.9, 1.0)
GRID = 2000
"""Numerical integration steps per period."""


def control_points(seed: int, num: int, period_s: float) -> tuple[Array, Array, Array, Array]:
    """Return q_0, d_0, d_-1 and q_1 ... q_num of two joints, the last two equal."""
    random = np.random.default_rng(seed)
    velocities = np.cumsum(random.uniform(-0.5, 0.5, (num + 2, 2)), axis=0)
    position = random.uniform(-3.0, 3.0, 2)
    points = position + np.cumsum(velocities[2:] * period_s, axis=0)
    return position, velocities[1], velocities[0], np.vstack([points, points[-1:]])


def averaged(points: Array, period_s: float, width_s: float, step_s: float) -> Array:
    """Return samples averaged over the width before each, which is a multiple of the step."""
    num = round(width_s / step_s)
    area = np.vstack([np.zeros(2), np.cumsum(0.5 * (points[1:] + points[:-1]), axis=0)]) * step_s
    result = points.copy()
    result[num:] = (area[num:] - area[:-num]) / width_s
    return result


@pytest.mark.parametrize("period_s", PERIODS)
@pytest.mark.parametrize("share", SHARES)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 6))
def test_it_is_the_line_through_the_points_averaged_over_a_period_and_then_over_the_ramp(
    period_s: float, share: float, seed: int, num: int
) -> None:
    position, velocity, before, points = control_points(seed, num, period_s)
    curve = make_curve(position, velocity, before, points, period_s, share * period_s)
    first = position - velocity * period_s
    line = np.vstack([first - before * period_s, first, position, points, points[-1], points[-1]])
    time = np.arange((len(line) - 1) * GRID + 1) / GRID
    fine = np.column_stack([np.interp(time, np.arange(len(line)), column) for column in line.T])
    step_s = period_s / GRID
    once = averaged(fine, period_s, period_s, step_s)
    twice = averaged(once, period_s, share * period_s, step_s)
    for index in range(2 * GRID, len(twice), 97):
        got, _ = curve.sample((index - 2 * GRID) * step_s)
        np.testing.assert_allclose(got, twice[index], rtol=0.0, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    num=st.integers(1, 16),
    period_s=st.sampled_from(PERIODS),
    share=st.sampled_from(SHARES),
)
def test_a_joint_trajectory_controller_lays_the_same_curve_through_its_knots(
    seed: int, num: int, period_s: float, share: float
) -> None:
    """Its splines are in whole nanoseconds: half of one at 8 rad/s is 4e-9 rad at the most."""
    position, velocity, before, points = control_points(seed, num, period_s)
    curve = make_curve(position, velocity, before, points, period_s, share * period_s)
    follower = TrajectoryFollower(position)
    follower.follow(waypoints(curve, SECOND_NS), SECOND_NS, Motion(position + 9.0), SECOND_NS)
    for share_of_time in np.linspace(0.0, 1.1, 40):
        time_ns = round(share_of_time * curve.end_s * SECOND_NS)
        wanted, speed = curve.sample(time_ns / SECOND_NS)
        got = follower.sample(SECOND_NS + time_ns)
        np.testing.assert_allclose(got.position, wanted, rtol=0.0, atol=1e-9)
        assert got.velocity is not None
        np.testing.assert_allclose(got.velocity, speed, rtol=0.0, atol=3e-7 / period_s / share)


def waypoints(curve: Curve, start_ns: int) -> Waypoints:
    """Return the message that a curve becomes."""
    times = tuple(round(time * SECOND_NS) for time in curve.times)
    rows = zip(curve.positions, curve.velocities, strict=True)
    return Waypoints(start_ns, times, tuple(Motion(p, v) for p, v in rows))


@pytest.mark.parametrize("period_s", PERIODS)
@pytest.mark.parametrize("jerk", [2000.0, 200.0, 30.0])
def test_a_controller_whose_trajectory_is_replaced_every_period_moves_as_one_curve(
    period_s: float, jerk: float
) -> None:
    """Each message begins at its own stamp, on the motion of the one before."""
    limits = (JointLimits("a", -2.0, 2.0, 2.0, 8.0, jerk, 9.0),)
    gate = SafetyGate(limits, period_s)
    gate.open(np.zeros(1))
    follower = TrajectoryFollower(np.zeros(1))
    period_ns, now_ns = round(period_s * SECOND_NS), SECOND_NS
    random = np.random.default_rng(3)
    last: Curve | None = None
    for tick in range(120):
        wish = gate.position + 0.3 * period_s * random.standard_normal((4, 1)).cumsum(axis=0)
        gated = gate.coast() if tick % 7 == 6 else gate.admit(gate.joint_names, wish)
        curve = gated.curve
        assert curve is not None
        follower.follow(waypoints(curve, now_ns), now_ns, follower.sample(now_ns), now_ns)
        if last is not None:
            before, speed = last.sample(period_s)
            here = follower.sample(now_ns)
            np.testing.assert_allclose(here.position, before, rtol=0.0, atol=1e-9)
            np.testing.assert_allclose(here.velocity, speed, rtol=0.0, atol=1e-9)
        for share in (0.0, 0.25, 0.5, 0.95):
            wanted, _ = curve.sample(share * period_s)
            got = follower.sample(now_ns + round(share * period_ns))
            np.testing.assert_allclose(got.position, wanted, rtol=0.0, atol=1.5e-9)
        last, now_ns = curve, now_ns + period_ns


def test_a_curve_ends_in_its_last_control_point_and_stays_there() -> None:
    position, velocity, before, points = control_points(5, 4, 0.05)
    curve = make_curve(position, velocity, before, points, 0.05, 0.01)
    for time_s in (curve.end_s, curve.end_s + 100.0):
        at, speed = curve.sample(time_s)
        assert np.array_equal(at, points[-1]) and not speed.any()
    assert curve.end_s == pytest.approx(len(points) * 0.05 + 0.01)


def test_a_joint_at_rest_makes_a_curve_that_stands_still() -> None:
    here, still = np.array([0.3, -1.0]), np.zeros(2)
    curve = make_curve(here, still, still, here[None], 0.05, 0.05)
    for time_s in (0.0, 0.02, 0.06, 1.0):
        position, velocity = curve.sample(time_s)
        assert np.array_equal(position, here) and not velocity.any()


def test_it_lags_the_line_by_half_a_period_and_half_a_ramp() -> None:
    velocity = np.array([0.4, 0.0])
    points = np.arange(1, 9)[:, None] * velocity * 0.05
    curve = make_curve(
        np.zeros(2), velocity, velocity, np.vstack([points, points[-1]]), 0.05, 0.02
    )
    position, speed = curve.sample(0.2)
    np.testing.assert_allclose(position, velocity * (0.2 - 0.035), atol=1e-12)
    np.testing.assert_allclose(speed, velocity, atol=1e-12)
