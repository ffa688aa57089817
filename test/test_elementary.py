"""Sine, cosine and arctangent: accurate, and the same bits in any batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.elementary import arctangent2, sine_cosine

ANGLES = np.concatenate(
    [
        np.random.default_rng(0).uniform(-20.0, 20.0, 20_000),
        np.arange(-16, 17) * (np.pi / 4),
        [0.0, -0.0, 1e-300, 1e5],
    ]
)


def test_sine_and_cosine_are_those_of_the_library() -> None:
    sine, cosine = sine_cosine(ANGLES)
    np.testing.assert_allclose(sine, np.sin(ANGLES), rtol=0, atol=4e-16)
    np.testing.assert_allclose(cosine, np.cos(ANGLES), rtol=0, atol=4e-16)


def test_arctangent_is_that_of_the_library() -> None:
    points = np.random.default_rng(0).normal(size=(2, 20_000))
    points = np.concatenate([points, [[0, 0, 1, -1, 0, 1], [1, -1, 0, 0, 0, 1]]], axis=1)
    angle = arctangent2(points[0], points[1])
    np.testing.assert_allclose(angle, np.arctan2(points[0], points[1]), rtol=0, atol=1e-15)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 19_000), st.integers(1, 40), st.integers(1, 3))
def test_a_value_has_the_same_bits_in_any_slice(start: int, num: int, stride: int) -> None:
    part = slice(start, start + num * stride, stride)
    for whole, sliced in zip(sine_cosine(ANGLES), sine_cosine(ANGLES[part]), strict=True):
        assert np.array_equal(whole[part], sliced)
    others = ANGLES[::-1].copy()
    whole = arctangent2(ANGLES, others)
    assert np.array_equal(whole[part], arctangent2(ANGLES[part], others[part]))
