"""The limiter against closed forms: braking distances, and the fastest that can still stop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.limiter import LEAST_GAP_S, ControlPointLimiter
from grpo_ros.errors import ContractError

PERIOD = 0.02
LIMIT = JointLimits("slide", -1.0, 2.0, 1.5, 6.0, 3000.0, 40.0)
STEP = LIMIT.acceleration * PERIOD
ONE = np.ones(1)


def limiter(**changes: float) -> ControlPointLimiter:
    values = {**vars(LIMIT), **changes}
    return ControlPointLimiter([JointLimits(**values)], PERIOD)


@given(st.floats(-1.5, 1.5))
def test_the_way_to_rest_has_the_length_of_the_closed_form(velocity: float) -> None:
    """D = T (n v - b n (n + 1) / 2) with n = floor(v / b): speeds v - b, v - 2 b, ... >= 0."""
    points = limiter().braking(0.0 * ONE, velocity * ONE)
    speed = abs(velocity)
    n = math.floor(speed / STEP)
    expected = PERIOD * (n * speed - STEP * n * (n + 1) / 2.0)
    assert points[-1, 0] == pytest.approx(math.copysign(expected, velocity), abs=1e-9)
    assert len(points) == max(1, math.ceil(speed / STEP - 1e-9))


@given(st.floats(0.0, 1.5), st.integers(0, 12))
def test_speeds_of_whole_braking_steps_take_as_many_steps(share: float, num: int) -> None:
    points = limiter().braking(share * ONE, num * STEP * ONE)
    assert len(points) == max(1, num)
    assert points[-1, 0] == pytest.approx(share + PERIOD * STEP * num * (num - 1) / 2.0)


@given(st.floats(0.0, 3.0))
def test_from_the_fastest_velocity_allowed_the_joint_stops_exactly_at_its_limit(
    room: float,
) -> None:
    one = limiter(velocity=1e6)
    position = (LIMIT.upper - room) * ONE
    at_speed = one.velocity_range(position, 1e3 * ONE)[1] * 0.0  # what holds at rest:
    _, high = one.velocity_range(position, at_speed)
    fastest = one.velocity_range(position, np.minimum(high, 50.0))[1]
    moved = position + PERIOD * fastest
    stop = one.braking(moved, fastest)[-1, 0]
    assert stop <= LIMIT.upper + 1e-9


@settings(max_examples=60)
@given(st.floats(1e-6, 3.0))
def test_the_stopping_velocity_is_the_inverse_of_the_stopping_distance(room: float) -> None:
    one = limiter(velocity=1e6)
    speed = float(one._stoppable(room * ONE)[0])
    n = math.floor(speed / STEP * (1.0 + 1e-12))
    distance = PERIOD * ((n + 1) * speed - STEP * n * (n + 1) / 2.0)
    assert distance == pytest.approx(room, rel=1e-9, abs=1e-12)


@given(st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=8))
def test_rows_of_a_batch_brake_as_each_does_alone(velocities: list[float]) -> None:
    one = limiter()
    speeds = np.array(velocities)[:, None]
    together = one.braking(np.zeros_like(speeds), speeds)
    for row, speed in enumerate(speeds):
        alone = one.braking(np.zeros(1), speed)
        np.testing.assert_allclose(together[: len(alone), row], alone, atol=1e-15)
        assert (together[len(alone) :, row] == together[len(alone) - 1, row]).all()


@settings(max_examples=60)
@given(
    st.floats(-0.9, 1.9),
    st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=16),
    st.floats(0.05, 1.0),
)
def test_rows_limited_together_are_those_limited_one_after_the_other(
    position: float, steps: list[float], share: float
) -> None:
    one = limiter()
    targets = position + np.cumsum(steps)[:, None] * 0.02
    together, speeds = one.limit(position * ONE, 0.0 * ONE, targets, share)
    here, velocity = position * ONE, 0.0 * ONE
    for row, target in enumerate(targets):
        passed, found = one.limit(here, velocity, target[None], share)
        here, velocity = passed[0], found[0]
        np.testing.assert_allclose(together[row], here, rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(speeds[row], velocity, rtol=0.0, atol=1e-9)


def test_targets_are_not_written_to() -> None:
    targets = np.array([[0.001], [5.0], [0.0]])
    kept = targets.copy()
    passed, _ = limiter().limit(0.0 * ONE, 0.0 * ONE, targets)
    assert np.array_equal(targets, kept) and not np.array_equal(passed, targets)


@pytest.mark.parametrize("jerk", [3000.0, 700.0, 300.0, 1e12])
@pytest.mark.parametrize("period_s", [0.002, 0.0041, 0.02])
def test_the_ramp_fits_the_period_keeps_the_jerk_and_leaves_room_between_knots(
    jerk: float, period_s: float
) -> None:
    limits = [JointLimits("slide", -1.0, 2.0, 1.5, 6.0, jerk, 40.0)]
    one = ControlPointLimiter(limits, period_s)
    assert 2.0 * one.acceleration[0] / one.ramp_s <= jerk * (1.0 + 1e-12)
    assert one.acceleration[0] <= 6.0
    gap_s = period_s - one.ramp_s
    assert gap_s == 0.0 or gap_s >= LEAST_GAP_S * (1.0 - 1e-9)
    assert one.ramp_s >= min(period_s, 1e-3)


@pytest.mark.parametrize("period_s", [0.0, -0.1])
def test_a_period_that_is_none_is_refused(period_s: float) -> None:
    with pytest.raises(ContractError, match="period above 0"):
        ControlPointLimiter([LIMIT], period_s)


def test_what_a_target_exceeds_is_named_with_its_joint() -> None:
    limits = [LIMIT, JointLimits("other", -1.0, 2.0, 1.5, 6.0, 3000.0, 40.0)]
    one = ControlPointLimiter(limits, PERIOD)
    for position, velocity, target, expected in (
        (0.0, 0.0, [0.0, 0.0], {}),
        (0.0, 0.0, [0.0, 0.01], {"acceleration": 1}),
        (0.0, 1.5, [0.031, 0.03], {"velocity": 0}),
        (0.0, 0.0, [2.1, 0.0], {"position": 0, "velocity": 0, "acceleration": 0}),
        (1.99, 0.5, [1.998, 1.998], {"position": 0}),  # 0.4 cannot stop within 0.002
    ):
        before, speed = np.full(2, position), np.full(2, velocity)
        wanted = np.array(target)
        passed, _ = one.limit(before, speed, wanted[None])
        assert one.exceeded(before, speed, wanted, passed[0]) == expected
