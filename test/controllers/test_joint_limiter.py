"""JointLimiter: limits hold for any goals, and constant goals are reached without overshoot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from grpo_ros.contract import JointLimits
from grpo_ros.controllers import JointLimiter

LIMITS = (
    JointLimits("fast", -2.7, 2.7, 2.1, 10.0, 5000.0, 87.0),
    JointLimits("slow", -0.1, 0.05, 0.3, 0.7, 5000.0, 12.0),
    JointLimits("short", -0.01, 0.01, 5.0, 10.0, 5000.0, 12.0),
)
LOWER = np.array([[limit.lower] for limit in LIMITS])
UPPER = np.array([[limit.upper] for limit in LIMITS])
VELOCITY = np.array([[limit.velocity] for limit in LIMITS])
ACCELERATION = np.array([[limit.acceleration] for limit in LIMITS])
TINY = 1e-9

finite = st.floats(-8.0, 8.0, allow_nan=False)
huge = st.floats(allow_nan=False, allow_infinity=False)
sequences = st.lists(st.tuples(finite, finite, finite) | st.tuples(huge, huge, huge), max_size=40)
fractions = st.tuples(*[st.floats(0.0, 1.0)] * 3)
periods = st.sampled_from([0.005, 0.02, 0.05, 0.1])


def column(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.array(values, dtype=np.float64)[:, None]


def within_limits(shares: tuple[float, ...]) -> NDArray[np.float64]:
    """Return positions at these shares of the joints' ranges."""
    return np.clip(LOWER + (UPPER - LOWER) * column(shares), LOWER, UPPER)


@settings(max_examples=150, deadline=None)
@given(sequences, fractions, periods, st.booleans())
@example([], (0.0, 1.0, 0.0), 0.005, False)  # at a limit, which a rounded sum may lie beyond
def test_no_sequence_of_commands_breaks_a_limit(
    commands: list[tuple[float, ...]],
    start: tuple[float, ...],
    period: float,
    by_velocity: bool,
) -> None:
    limiter = JointLimiter(LIMITS, period)
    position = within_limits(start)
    velocity = np.zeros_like(position)
    for command in [*commands, *[(9.0, 9.0, 9.0)] * 20]:
        move = limiter.at_velocity if by_velocity else limiter.towards
        after, speed = move(position, velocity, column(command))
        moved = (after - position) / period
        assert (after >= LOWER).all() and (after <= UPPER).all()
        assert (np.abs(speed) <= VELOCITY + TINY).all()
        assert (np.abs(speed - velocity) <= ACCELERATION * period + TINY).all()
        # The clip at a position limit takes off rounding errors only: braking is early enough.
        np.testing.assert_allclose(moved, speed, atol=1e-7)
        position, velocity = after, speed


@settings(max_examples=100, deadline=None)
@given(fractions, fractions, periods)
def test_a_constant_goal_is_reached_without_overshoot(
    start: tuple[float, ...], goal: tuple[float, ...], period: float
) -> None:
    limiter = JointLimiter(LIMITS, period)
    position = within_limits(start)
    target = within_limits(goal)
    direction = np.sign(target - position)
    velocity = np.zeros_like(position)
    distance = np.abs(target - position)
    for _ in range(math.ceil(6.0 / period)):
        position, velocity = limiter.towards(position, velocity, target)
        assert (direction * (position - target) <= TINY).all()
        assert (np.abs(target - position) <= distance + TINY).all()
        distance = np.abs(target - position)
    np.testing.assert_allclose(position, target, atol=TINY)
    np.testing.assert_allclose(velocity, 0.0, atol=1e-6)


def test_a_move_takes_the_shortest_time() -> None:
    # Rest to rest over 1 rad with v = 2 rad/s, a = 10 rad/s^2 takes d/v + v/a = 0.7 s.
    limiter = JointLimiter([JointLimits("j", -3.0, 3.0, 2.0, 10.0, 5000.0, 1.0)], 0.001)
    position, velocity, steps = np.zeros((1, 1)), np.zeros((1, 1)), 0
    while position[0, 0] < 1.0 - 1e-6:
        position, velocity = limiter.towards(position, velocity, np.ones((1, 1)))
        steps += 1
    assert steps * 0.001 == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize("period", [0.01, 0.05])
def test_stopping_velocity_can_just_stop(period: float) -> None:
    limiter = JointLimiter(LIMITS[:1], period)
    change = LIMITS[0].acceleration * period
    for distance in np.concatenate([np.geomspace(1e-6, 3.0, 50), change * period * np.arange(9)]):
        speed = float(limiter.stopping_velocity(np.array([[distance]]))[0, 0])
        travelled = 0.0
        while speed > 0.0:
            travelled += speed * period
            speed = speed - change
        assert travelled == pytest.approx(distance, abs=1e-9)


def test_a_joint_beyond_its_limits_comes_back_within_limits_and_never_goes_further() -> None:
    limiter = JointLimiter(LIMITS[:1], 0.05)
    position, velocity = np.array([[2.9]]), np.zeros((1, 1))
    for goal in [5.0] * 40:
        after, velocity = limiter.towards(position, velocity, np.array([[goal]]))
        assert after[0, 0] <= position[0, 0]
        assert abs(after[0, 0] - position[0, 0]) <= 2.1 * 0.05 + TINY
        position = after
    assert position[0, 0] == pytest.approx(2.7)


def test_rows_have_the_same_bits_in_any_batch() -> None:
    limiter, random = JointLimiter(LIMITS, 0.05), np.random.default_rng(0)
    position = random.uniform(LOWER, UPPER, (3, 256))
    velocity, goal = random.uniform(-1.0, 1.0, (2, 3, 256))
    for move in (limiter.towards, limiter.at_velocity):
        whole = move(position, velocity, goal)
        for part in (slice(0, 1), slice(3, 10), slice(100, 164)):
            copies = [np.ascontiguousarray(a[:, part]) for a in (position, velocity, goal)]
            for together, alone in zip(whole, move(*copies), strict=True):
                assert np.array_equal(together[:, part], alone)
