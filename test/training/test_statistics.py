"""Intervals against published and hand-computed values."""

import numpy as np
import pytest

from grpo_ros.training.statistics import paired_difference, wilson_interval


def test_wilson_interval_matches_hand_computed_values():
    # p = 0.9, n = 100: centre (0.9 + 0.019207) / 1.038415, half width 0.0591...
    low, high = wilson_interval(90, 100)
    assert low == pytest.approx(0.82563, abs=2e-5)
    assert high == pytest.approx(0.94477, abs=2e-5)


def test_wilson_interval_is_never_empty_at_the_ends():
    low, high = wilson_interval(0, 20)
    assert low == 0.0 and high == pytest.approx(0.16113, abs=2e-5)
    low, high = wilson_interval(20, 20)
    assert high == 1.0 and low == pytest.approx(1 - 0.16113, abs=2e-5)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_interval_covers_the_true_rate_as_often_as_it_says():
    source = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        low, high = wilson_interval(int(source.binomial(200, 0.93)), 200)
        covered.append(low <= 0.93 <= high)
    assert 0.93 < np.mean(covered) < 0.975


def test_paired_difference_of_equal_outcomes_is_zero_with_positive_width():
    outcomes = np.array([1, 0, 1, 1] * 50)
    mean, low, high = paired_difference(outcomes, outcomes)
    assert mean == 0.0 and low == pytest.approx(-1 / 200) and high == pytest.approx(1 / 200)


def test_paired_difference_has_the_sign_of_first_minus_second():
    first, second = np.ones(100), np.array([1, 0] * 50)
    mean, low, high = paired_difference(first, second)
    assert mean == 0.5 and low > 0.38 and high < 0.62
