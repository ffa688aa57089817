"""Range readings: each wanted beam is the nearest given one, and what is unknown is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.deployment.inputs.range_readings import clipped, nearest_beams, read_ranges

TURN = 2.0 * math.pi


def difference(first: float, second: float) -> float:
    """Return the angle between two directions."""
    return abs(math.remainder(first - second, TURN))


def test_the_layout_of_training_passes_unchanged() -> None:
    assert nearest_beams(0.0, TURN / 16, 16, 16).tolist() == list(range(16))


def test_a_scan_from_behind_and_one_that_turns_clockwise_are_brought_into_order() -> None:
    assert nearest_beams(-math.pi, TURN / 8, 8, 8).tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert nearest_beams(0.0, -TURN / 8, 8, 8).tolist() == [0, 7, 6, 5, 4, 3, 2, 1]
    assert nearest_beams(0.0, TURN / 8, 8, 8, turn=math.pi / 2).tolist() == [
        6, 7, 0, 1, 2, 3, 4, 5,
    ]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 24),
    st.integers(0, 400),
    st.floats(-math.pi, math.pi),
    st.floats(-math.pi, math.pi),
    st.sampled_from([1.0, -1.0]),
)
def test_every_wanted_beam_is_the_nearest_given_one(
    num_wanted: int, more: int, angle_min: float, turn: float, sign: float
) -> None:
    num_given = num_wanted + more
    increment = sign * TURN / num_given
    beams = nearest_beams(angle_min, increment, num_given, num_wanted, turn)
    given_at = [turn + angle_min + k * increment for k in range(num_given)]
    for i, beam in enumerate(beams.tolist()):
        wanted_at = TURN * i / num_wanted
        nearest = min(difference(angle, wanted_at) for angle in given_at)
        assert difference(given_at[beam], wanted_at) == pytest.approx(nearest, abs=1e-9)


def test_a_last_beam_that_repeats_the_first_does_no_harm() -> None:
    beams = nearest_beams(-math.pi, TURN / 360, 361, 4)
    assert beams.tolist()[:2] == [180, 270] and beams[3] == 90 and beams[2] in (0, 360)


@pytest.mark.parametrize(
    ("angle_min", "increment", "num_given", "expected"),
    [
        (-2.0, 4.0 / 360, 360, "no beam near 3.142 rad"),
        (0.0, TURN / 4, 4, "at most 0.7854 rad"),
        (math.nan, 0.1, 63, "nan rad"),
        (0.0, 0.0, 16, "steps of 0.0"),
        (0.0, 0.1, 0, "0 beams"),
        (0.0, math.nan, 16, "nan"),
    ],
)
def test_a_laser_that_does_not_see_all_around_is_refused(
    angle_min: float, increment: float, num_given: int, expected: str
) -> None:
    with pytest.raises(InputRefusal, match=expected):
        nearest_beams(angle_min, increment, num_given, 8)


def test_what_is_beyond_the_sensor_is_nothing_met() -> None:
    read = read_ranges(np.array([0.5, 7.0, math.inf, -math.inf]), 0.1, 6.0, 2.0)
    assert read.tolist() == [0.5, math.inf, math.inf, -math.inf]
    assert clipped(read, 4, 2.0).tolist() == [0.5, 2.0, 2.0, 0.0]


def test_noise_in_training_does_not_shut_out_the_sensor_trained_with() -> None:
    assert read_ranges(np.array([1.0, math.inf]), 0.0, 2.0, 2.02).tolist() == [1.0, math.inf]


@pytest.mark.parametrize(
    ("ranges", "range_min", "range_max", "expected"),
    [
        ([0.0], 0.1, 6.0, "beam 0 reads 0.0 m, below range_min"),
        ([1.0], 0.1, 1.5, "sees 1.50 m far.*2.00 m"),
        ([1.0], 0.1, math.nan, "range_max nan"),
    ],
)
def test_a_reading_whose_meaning_is_not_known_is_refused(
    ranges: list[float], range_min: float, range_max: float, expected: str
) -> None:
    with pytest.raises(InputRefusal, match=expected):
        read_ranges(np.array(ranges), range_min, range_max, 2.0)
