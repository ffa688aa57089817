"""Splines against closed forms, and the rules by which a trajectory is sampled."""

from __future__ import annotations

import timeit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from grpo_ros.deployment.simulation.trajectory_follower import (
    SECOND_NS,
    Array,
    Motion,
    TrajectoryFollower,
    Waypoints,
)

MS = 1_000_000
VALUE = st.floats(-3.0, 3.0)
SPAN_MS = st.integers(2, 5000)


def row(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def motion(polynomials: list[Polynomial], t: float, order: int) -> Motion:
    """Return what polynomials do at a time; derivatives up to an order are said."""
    values = [np.array([p.deriv(k)(t) for p in polynomials]) for k in range(3)]
    return Motion(*values[: order + 1])


def between(first: Motion, last: Motion, span_ms: int) -> TrajectoryFollower:
    """Return a follower of one segment, whose first point is due at once."""
    follower = TrajectoryFollower(first.position)
    way = Waypoints(SECOND_NS, (0, span_ms * MS), (first, last))
    follower.follow(way, SECOND_NS, Motion(first.position + 9.0), SECOND_NS)
    return follower


@pytest.mark.parametrize(("order", "degree"), [(0, 1), (1, 3), (2, 5)])
@settings(max_examples=60, deadline=None)
@given(
    coefficients=st.lists(st.lists(VALUE, min_size=6, max_size=6), min_size=2, max_size=2),
    span_ms=SPAN_MS,
    share=st.floats(0.0, 0.999),
)
def test_a_segment_is_the_lowest_polynomial_that_meets_what_is_said_at_both_ends(
    order: int, degree: int, coefficients: list[list[float]], span_ms: int, share: float
) -> None:
    truth = [Polynomial(values[: degree + 1]) for values in coefficients]
    ends = [motion(truth, t, order) for t in (0.0, span_ms / 1e3)]
    time_ns = int(share * span_ms * MS)
    got, expected = (
        between(ends[0], ends[1], span_ms).sample(SECOND_NS + time_ns),
        motion(truth, time_ns / SECOND_NS, 2),
    )
    scale = max(1.0, *(abs(value) for p in coefficients for value in p)) * (1 + span_ms / 1e3) ** 5
    for power, key in enumerate(("position", "velocity", "acceleration")):
        tolerance = 1e-11 * scale * (1e3 / span_ms + 1.0) ** power
        np.testing.assert_allclose(getattr(got, key), getattr(expected, key), atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(VALUE, min_size=12, max_size=12), span_ms=SPAN_MS)
def test_both_ends_of_a_quintic_are_met(values: list[float], span_ms: int) -> None:
    rows = np.array(values).reshape(6, 2)
    first, last = Motion(*rows[:3]), Motion(*rows[3:])
    follower = between(first, last, span_ms)
    at_start, at_end = (
        follower.sample(SECOND_NS),
        follower.sample(SECOND_NS + span_ms * MS),
    )
    almost = follower.sample(SECOND_NS + span_ms * MS - 1)
    for key in ("position", "velocity", "acceleration"):
        np.testing.assert_allclose(getattr(at_start, key), getattr(first, key), atol=1e-9)
        np.testing.assert_array_equal(getattr(at_end, key), getattr(last, key))
    np.testing.assert_allclose(almost.position, last.position, atol=1e-5)


@pytest.mark.parametrize(
    ("first", "last", "middle"),
    [
        (Motion(row(0.0), row(1.0), row(2.0)), Motion(row(1.0)), 0.5),
        (Motion(row(0.0)), Motion(row(1.0), row(1.0), row(2.0)), 0.5),
        (Motion(row(0.0), row(0.0), row(5.0)), Motion(row(1.0), row(4.0)), 0.0),
        (Motion(row(0.0), row(0.0)), Motion(row(1.0), row(4.0), row(9.0)), 0.0),
    ],
)
def test_mixed_points_have_the_order_that_both_ends_allow(
    first: Motion, last: Motion, middle: float
) -> None:
    # linear half way: (x0 + x1) / 2; cubic: that plus T (v0 - v1) / 8
    assert between(first, last, 1000).sample(SECOND_NS + 500 * MS).position[0] == pytest.approx(
        middle
    )


def test_a_first_point_at_the_stamp_itself_continues_on_the_messages_own_curve() -> None:
    knots = (Motion(row(1.0), row(2.0)), Motion(row(2.0), row(0.0)))
    way = Waypoints(5 * SECOND_NS, (0, 1000 * MS), knots)
    elsewhere = Motion(row(-7.0), row(3.0))
    samples = []
    for late_ms in (0, 1, 250):
        now = 5 * SECOND_NS + late_ms * MS
        follower = TrajectoryFollower(row(0.0))
        follower.follow(way, now, elsewhere, now)
        samples.append([follower.sample(5 * SECOND_NS + t * MS).position[0] for t in (250, 600)])
    assert samples[0] == samples[1] == samples[2]
    assert samples[0][0] == pytest.approx(1.0 + 0.5 - 0.0625 + 0.0)  # 1 + 2t - t^2 at t = 0.25


def test_before_the_first_point_the_way_leads_there_from_the_state_before() -> None:
    follower = TrajectoryFollower(row(0.0))
    way = Waypoints(2 * SECOND_NS, (500 * MS, 1000 * MS), (Motion(row(1.0)), Motion(row(3.0))))
    follower.follow(way, 2 * SECOND_NS, Motion(row(0.5), row(9.0)), 2 * SECOND_NS)
    times = (0, 250, 500, 750, 1000, 9000)
    samples = [follower.sample(2 * SECOND_NS + t * MS).position[0] for t in times]
    assert samples == [0.5, 0.75, 1.0, 2.0, 3.0, 3.0]
    assert follower.sample(2 * SECOND_NS + 250 * MS).velocity[0] == 1.0
    ends = [follower.has_ended(2 * SECOND_NS + t * MS) for t in (999, 1000)]
    assert ends == [False, True]


def test_start_zero_is_when_it_is_first_sampled_and_due_points_are_passed_over() -> None:
    points = (Motion(row(1.0)), Motion(row(2.0)))
    follower = TrajectoryFollower(row(0.0))
    follower.follow(Waypoints(0, (0, 100 * MS), points), 70 * MS, Motion(row(0.0)), 70 * MS)
    assert follower.sample(120 * MS).position[0] == 1.5
    follower.follow(Waypoints(50 * MS, (0, 100 * MS), points), 125 * MS, points[0], 125 * MS)
    assert follower.sample(125 * MS).position[0] == 1.75
    assert follower.end_ns == 150 * MS


def test_sampling_costs_little_of_a_physics_step() -> None:
    random = np.random.default_rng(0)
    points = tuple(Motion(*random.standard_normal((3, 7))) for _ in range(50))
    follower = TrajectoryFollower(np.zeros(7))
    times = tuple(50 * MS * i for i in range(50))
    follower.follow(Waypoints(SECOND_NS, times, points), SECOND_NS, points[0], SECOND_NS)
    stamps = range(SECOND_NS, SECOND_NS + 2 * SECOND_NS, 2 * MS)
    best = min(timeit.repeat(lambda: [follower.sample(t) for t in stamps], number=1, repeat=5))
    assert best / len(stamps) < 200e-6  # a tenth of 2 ms; some 6 us where nothing else runs
