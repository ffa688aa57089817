"""Motions in time: whenever ticks come, the arm moves on without a step and within limits."""

from __future__ import annotations

import numpy as np
import pytest
from gate_driver import DT, bounds, perform, sampled

from grpo_ros.contract import JointLimits
from grpo_ros.deployment.safety.course import SAME_TIME_S, Course, cut
from grpo_ros.deployment.safety.curve import Array, Curve, make_curve
from grpo_ros.deployment.safety.gate import SafetyGate

SECOND_NS = 1_000_000_000
LIMITS = (
    JointLimits("a", -2.0, 2.0, 2.0, 10.0, 5000.0, 9.0),
    JointLimits("b", -1.0, 3.0, 1.0, 3.0, 300.0, 9.0),
)
START = np.array([0.3, 0.2])
KINDS = ("path", "far", "jump", "hold", "again")
ROUNDING = 1e-3
"""Share of a limit: knots may be 0.1 ms apart, and jerk changes within that go unseen."""


class Drive:
    """A gate whose motions are laid on a course; the arm gets each at its tick."""

    def __init__(self, period_s: float) -> None:
        self.gate, self.course = SafetyGate(LIMITS, period_s), Course(period_s)
        self.gate.open(START)
        self.sent: list[tuple[int, Curve]] = []

    def tick(self, now_ns: int, operation: tuple) -> None:
        for _ in range(self.course.num_missed(now_ns)):
            if self.gate.is_at_rest:
                self.course.clear()
                break
            self.gate.coast()
            self.course.pass_by()
        gated = perform(self.gate, operation, START)
        assert gated is not None and gated.curve is not None
        self.sent.append((now_ns, self.course.lay(gated.curve, now_ns)))

    def path(self) -> Array:
        """Return where the arm is at 1 kHz, which gets each motion when it is sent."""
        stamps = np.array([stamp for stamp, _ in self.sent])
        end = stamps[-1] + round(self.sent[-1][1].end_s * SECOND_NS) + 4_000_000
        times = np.arange(stamps[0], end, round(DT * SECOND_NS))
        rows = np.searchsorted(stamps, times, side="right") - 1
        parts = [
            sampled(curve, (times[rows == i] - stamp) / SECOND_NS)
            for i, (stamp, curve) in enumerate(self.sent)
            if (rows == i).any()
        ]
        return np.vstack(parts)


def assert_within_limits(path: Array) -> None:
    lower, upper, *most = bounds(LIMITS)
    assert (path >= lower - 1e-8).all() and (path <= upper + 1e-8).all()
    for order, limit in enumerate(most, start=1):
        found = np.abs(np.diff(path, order, axis=0)).max(axis=0) / DT**order
        assert (found <= limit * (1.0 + ROUNDING)).all(), (order, found / limit)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("period_s", "jitter", "missed"),
    [(0.05, 0.0, 0.0), (0.05, 0.15, 0.0), (0.05, 0.45, 0.0), (0.05, 0.15, 0.1), (0.02, 0.2, 0.05),
     (0.005, 0.3, 0.05)],
)  # fmt: skip
def test_early_late_and_missing_ticks_make_no_step_and_break_no_limit(
    seed: int, period_s: float, jitter: float, missed: float
) -> None:
    random = np.random.default_rng(seed)
    drive, period_ns = Drive(period_s), round(period_s * SECOND_NS)
    kind = "far"
    for period in range(80):
        if random.random() < 0.2:
            kind = KINDS[random.integers(len(KINDS))]
        aside = round(random.uniform(-jitter, jitter) * period_ns)
        if random.random() >= missed:
            operation = (kind, int(random.integers(2**32)), int(random.integers(1, 9)))
            drive.tick(SECOND_NS + period * period_ns + aside, operation)
    assert_within_limits(drive.path())
    for _, curve in drive.sent:
        assert len(curve.times) < 2 or np.diff(curve.times).min() >= 0.99 * SAME_TIME_S
        assert not curve.velocities[-1].any()


@pytest.mark.parametrize("left_s", [0.0, 1e-6, 5e-5, 9.9e-5, 1.01e-4, 2e-4, 4.1e-3])
def test_a_tick_just_before_the_next_motion_is_due_makes_no_step(left_s: float) -> None:
    """Regression: within 0.1 ms the next motion began at once, a step of 0.1 ms of the speed."""
    drive = Drive(0.05)
    began_ns = SECOND_NS
    for period in range(8):
        drive.tick(began_ns + period * 50_000_000, ("far", 0, 1))
    drive.tick(began_ns + 8 * 50_000_000 + 10_000_000 - round(left_s * SECOND_NS), ("far", 0, 1))
    drive.tick(began_ns + 9 * 50_000_000, ("hold", 0, 1))
    assert_within_limits(drive.path())


@pytest.mark.parametrize("apart_ns", [0, 1_000, 60_000, 99_000, 2_000_000, 30_000_000])
def test_a_stop_at_any_time_after_a_tick_goes_on_from_where_the_arm_is(apart_ns: int) -> None:
    drive = Drive(0.05)
    for period in range(8):
        drive.tick(SECOND_NS + period * 50_000_000, ("far", 0, 1))
    drive.tick(SECOND_NS + 7 * 50_000_000 + apart_ns, ("hold", 0, 1))
    assert_within_limits(drive.path())


def test_a_first_motion_begins_a_little_later_from_standing() -> None:
    course = Course(0.05, lead=0.2)
    still = np.zeros(2)
    points = np.array([[0.01, 0.0], [0.01, 0.0]])
    curve = make_curve(still, still, still, points, 0.05, 0.02)
    sent = course.lay(curve, SECOND_NS)
    position, velocity = sent.sample(0.009)
    assert np.array_equal(position, still) and not velocity.any()
    np.testing.assert_allclose(sent.sample(0.01 + 0.03)[0], curve.sample(0.03)[0], atol=1e-12)
    assert not course.has_ended(SECOND_NS + 50_000_000)
    assert course.has_ended(SECOND_NS + 200_000_000)


def test_periods_without_a_tick_are_counted_once_they_have_begun() -> None:
    course = Course(0.05, lead=0.2)
    assert course.num_missed(SECOND_NS) == 0
    still = np.zeros(2)
    course.lay(make_curve(still, still, still, still[None], 0.05, 0.02), SECOND_NS)
    due_ns = SECOND_NS + 60_000_000
    for late_ns, expected in ((-1, 0), (0, 0), (1, 1), (50_000_000, 1), (50_000_001, 2)):
        assert course.num_missed(due_ns + late_ns) == expected
    course.pass_by()
    assert course.num_missed(due_ns + 1) == 0


@pytest.mark.parametrize("late_ms", [0, 3, 10, 12, 30, 45])
def test_after_a_late_first_tick_the_others_are_neither_early_nor_missed(late_ms: int) -> None:
    """Regression: ticks were due when the first one came; each second one seemed early then."""
    drive, period_ns = Drive(0.05), 50_000_000
    drive.course.tick_ns = SECOND_NS - 7 * period_ns
    drive.tick(SECOND_NS + late_ms * 1_000_000, ("far", 0, 1))
    for period in range(1, 20):
        now_ns = SECOND_NS + period * period_ns
        is_covered = late_ms > 10 and period == 1  # a lead later its time had begun
        assert drive.course.is_early(now_ns) == is_covered
        assert drive.course.num_missed(now_ns) == 0
        if not is_covered:
            drive.tick(now_ns, ("far", 0, 1))
    assert_within_limits(drive.path())


@pytest.mark.parametrize("shift_ms", range(-45, 50, 5))
def test_wherever_ticks_lie_between_periods_each_has_its_motion(shift_ms: int) -> None:
    """Ticks that come at another time from now on, e.g. after a clock was set."""
    drive, period_ns = Drive(0.05), 50_000_000
    drive.tick(SECOND_NS, ("far", 0, 1))
    num_early = num_missed = 0
    for period in range(1, 40):
        now_ns = SECOND_NS + period * period_ns + shift_ms * 1_000_000
        num_missed += drive.course.num_missed(now_ns)
        if drive.course.is_early(now_ns):
            num_early += 1
        else:
            drive.tick(now_ns, ("far", 0, 1))
    assert num_early <= 1 and num_missed <= 1
    assert_within_limits(drive.path())


@pytest.mark.parametrize("set_ms", [-700, -20, 300, 60_000])
def test_a_clock_that_was_set_changes_nothing_in_what_was_sent(set_ms: int) -> None:
    drive, other = Drive(0.05), Drive(0.05)
    for each in (drive, other):
        each.course.tick_ns = SECOND_NS
        for period in range(8):
            each.tick(SECOND_NS + period * 50_000_000, ("far", 0, 1))
    by_ns, stop_ns = set_ms * 1_000_000, SECOND_NS + 7 * 50_000_000 + 30_000_000
    drive.course.shift(by_ns)
    assert drive.course.tick_ns == SECOND_NS + by_ns
    drive.tick(stop_ns + by_ns, ("hold", 0, 1))
    other.tick(stop_ns, ("hold", 0, 1))
    found, expected = drive.sent[-1][1], other.sent[-1][1]
    np.testing.assert_array_equal(found.times, expected.times)
    np.testing.assert_array_equal(found.positions, expected.positions)
    for after_ns in (0, 100_000_000, 900_000_000):
        assert drive.course.has_ended(stop_ns + by_ns + after_ns) == other.course.has_ended(
            stop_ns + after_ns
        )


@pytest.mark.parametrize("before_s", [1e-7, 1e-6, 1e-5, 6.4e-5, 9.9e-5, 3e-4])
def test_what_is_left_shortly_before_a_knot_keeps_the_acceleration(before_s: float) -> None:
    """The ramps of joint a take 4 ms: from standing to a_max, and on."""
    period_s, ramp_s, most = 0.05, 0.004, LIMITS[0].acceleration
    speed = most * period_s * np.array([1.0, 2.0, 1.0, 0.0, 0.0])
    points = 0.3 + np.cumsum(speed * period_s)[:, None]
    curve = make_curve(np.array([0.3]), np.zeros(1), np.zeros(1), points, period_s, ramp_s)
    for knot in curve.times[1:-1]:
        left = cut(curve, float(knot) - before_s)
        for row, span in enumerate(np.diff(left.times)):
            if span < 1e-5:  # no controller samples in it, and rounding rules there
                continue
            rise = left.positions[row + 1] - left.positions[row]
            first, last = left.velocities[row : row + 2]
            at_ends = (
                6.0 * rise / span**2 - (4.0 * first + 2.0 * last) / span,
                (2.0 * first + 4.0 * last) / span - 6.0 * rise / span**2,
            )
            assert np.abs(at_ends).max() <= most * (1.0 + 1e-3), (knot, span)
