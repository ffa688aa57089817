"""Statistics of studies: against scipy where it has them, and on cases with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from study_helpers import run

from grpo_ros.experiments.comparison import (
    band,
    first_reached,
    more_seeds,
    paired,
    step_ratio,
    steps_to,
    student_interval,
    student_quantile,
    success,
)

CURVE = (0.2, 0.4, 0.8, 0.7, 0.95)


def test_quantiles_of_student_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for freedom in (*range(1, 40), 100, 1000):
        expected = stats.t.ppf(0.975, freedom)
        assert student_quantile(freedom) == pytest.approx(expected, abs=1e-3), freedom


def test_an_interval_is_students_and_one_value_has_none():
    stats = pytest.importorskip("scipy.stats")
    values = [0.1, 0.4, 0.35, 0.2, 0.6]
    found = student_interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    alone = student_interval([0.5])
    assert alone.mean == 0.5 and not math.isfinite(alone.half) and "one seed" in alone.text()
    assert alone.high == math.inf


def test_nineteen_of_twenty_intervals_hold_the_truth():
    generator = np.random.default_rng(0)
    found = [student_interval(list(generator.normal(0.3, 0.1, size=5))) for _ in range(2000)]
    inside = [each.low <= 0.3 <= each.high for each in found]
    assert 0.94 <= np.mean(inside) <= 0.96


def test_success_is_over_seeds_and_stays_within_nought_and_one():
    found = success({s: run("a", s, n) for s, n in enumerate((99, 100, 97))})
    assert found.mean == pytest.approx(0.98667, abs=1e-4) and found.high == 1.0
    single = success({0: run("a", 0, 50)})
    assert (single.low, single.high) == pytest.approx((0.404, 0.596), abs=1e-3)


def test_what_a_seed_brings_to_both_cancels():
    first = {s: run("a", s, n) for s, n in enumerate((50, 70, 90))}
    second = {s: run("b", s, n) for s, n in enumerate((45, 66, 84))}
    found = paired(first, second)
    assert found.mean == pytest.approx(0.05) and found.low > 0.0
    apart = success(first), success(second)
    assert apart[0].low < apart[1].high, "without pairs they could not be told apart"
    assert paired(first, {9: run("b", 9, 1)}).num == 0
    one = paired({0: first[0]}, {0: second[0]})
    assert one.num == 1 and one.low < 0.05 < one.high and math.isfinite(one.low)


def test_a_threshold_is_reached_between_two_points_of_the_curve():
    points = run("a", 0, 1, CURVE).points
    assert first_reached(points, 0.6) == pytest.approx(150.0)
    assert first_reached(points, 0.1) == 0.0
    assert first_reached(points, 0.8) == pytest.approx(200.0)
    assert first_reached(points, 0.99) is None


def test_runs_that_never_arrive_are_censored_not_dropped():
    runs = {0: run("a", 0, 1, CURVE), 1: run("a", 1, 1, (0.1, 0.2, 0.3))}
    reached = steps_to(runs, 0.6)
    assert reached.steps == {0: pytest.approx(150.0), 1: 200.0}
    assert reached.censored == {1} and "1 of 2 never" in reached.text()
    assert steps_to({1: runs[1]}, 0.6).text() == "not reached, 1 of 1 never"


def test_ratios_of_steps_say_what_they_are_bounds_of():
    fast = {s: run("a", s, 1, (0.0, 0.9, 0.9)) for s in range(3)}
    slow = {s: run("b", s, 1, (0.0, 0.45, 0.9)) for s in range(3)}
    never = {s: run("c", s, 1, (0.0, 0.1, 0.1)) for s in range(3)}
    half = step_ratio(steps_to(fast, 0.9), steps_to(slow, 0.9))
    assert half.interval.mean == pytest.approx(0.5)
    assert half.text().startswith("0.50 [0.50, 0.50]")
    assert step_ratio(steps_to(fast, 0.9), steps_to(never, 0.9)).text().startswith("<= 0.50")
    assert step_ratio(steps_to(never, 0.9), steps_to(fast, 0.9)).text().startswith(">= 2.00")
    assert step_ratio(steps_to(never, 0.9), steps_to(never, 0.9)).text().startswith("~ 1.00")
    late = {**slow, 2: never[2]}
    bound = step_ratio(steps_to(fast, 0.9), steps_to(late, 0.9))
    assert bound.is_upper_bound and bound.interval.high == math.inf, "nobody knows how late"
    assert bound.text().startswith("<= 0.50 [some never")
    there = {s: run("a", s, 1, (0.95, 0.95)) for s in range(3)}
    found = step_ratio(steps_to(there, 0.9), steps_to(fast, 0.9))
    assert found.text() == "seeds there before learning: 3"
    some = step_ratio(steps_to({**fast, 0: there[0]}, 0.9), steps_to({**slow, 0: there[0]}, 0.9))
    assert some.text() == "0.50 [0.50, 0.50], seeds there before learning: 1"


def test_a_run_that_ended_early_keeps_its_last_value():
    runs = {0: run("a", 0, 1, (0.0, 1.0)), 1: run("a", 1, 1, (0.0, 0.5, 0.8))}
    x, mean, low, high = band(runs, "eval_success", num=3)
    assert x == [0.0, 100.0, 200.0]
    assert mean == pytest.approx([0.0, 0.75, 0.9])
    assert (low[-1], high[-1]) == (pytest.approx(0.8), 1.0)
    assert band(runs, "diversity") == ([], [], [], [])


def test_how_many_more_seeds_would_settle_it():
    found = student_interval([0.0, 0.1, 0.05])
    num = more_seeds(found, 0.02)
    deviation = float(np.std([0.0, 0.1, 0.05], ddof=1))
    stats = pytest.importorskip("scipy.stats")
    assert stats.t.ppf(0.975, num - 1) * deviation / math.sqrt(num) <= 0.02
    assert more_seeds(found, 1.0) == 4 and more_seeds(student_interval([0.1]), 0.1) is None


def test_the_median_of_two_lies_between_them():
    early, late = run("ppo", 0, 90, (0.0, 0.9)), run("ppo", 1, 90, (0.0, 0.0, 0.0, 0.0, 0.9))
    found = steps_to({0: early, 1: late}, 0.9)
    assert found.text() == f"{(found.steps[0] + found.steps[1]) / 2e3:,.0f} k"
    never = run("ppo", 1, 10, (0.0, 0.1))
    assert steps_to({0: early, 1: never}, 0.9).text() == "not reached, 1 of 2 never"


def test_arms_without_a_common_seed_are_not_compared():
    assert paired({0: run("ppo", 0, 90)}, {1: run("grpo_8", 1, 80)}).text() == "no common seeds"
