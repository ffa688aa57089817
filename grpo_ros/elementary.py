"""Sine, cosine and arctangent from +, -, *, / and sqrt alone.

IEEE 754 fixes the result of those five operations, so these functions give the same bits for a
value in any batch, memory layout, library version or processor. Library versions do not: vector
and scalar code paths differ in the last bit, and which one is taken depends on the batch.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# pi/2 in three parts, the first two of 33 bits, so that k times them is exact for |k| < 2^20.
_HALF_PI_1 = 1.5707963267341256
_HALF_PI_2 = 6.077100506303966e-11
_HALF_PI_3 = 2.0222662487959506e-21

_SINE = [(-1.0) ** i / math.factorial(2 * i + 1) for i in range(9)]
_COSINE = [(-1.0) ** i / math.factorial(2 * i) for i in range(10)]
_ARCTANGENT = [(-1.0) ** i / (2 * i + 1) for i in range(13)]


def sine_cosine(angle: Array) -> tuple[Array, Array]:
    """Return sine and cosine of angles in rad, |angle| < 1e6; error below 3e-16."""
    turns = np.rint(angle * (2.0 / math.pi))
    rest = ((angle - turns * _HALF_PI_1) - turns * _HALF_PI_2) - turns * _HALF_PI_3
    square = rest * rest
    sine = _horner(_SINE, square)
    sine *= rest
    cosine = _horner(_COSINE, square)
    quadrant = turns - 4.0 * np.floor(turns * 0.25)
    odd = (quadrant == 1.0) | (quadrant == 3.0)
    sine_sign = 1.0 - 2.0 * (quadrant >= 2.0)
    cosine_sign = 1.0 - 2.0 * ((quadrant == 1.0) | (quadrant == 2.0))
    return (
        sine_sign * np.where(odd, cosine, sine),
        cosine_sign * np.where(odd, sine, cosine),
    )


def arctangent2(y: Array, x: Array) -> Array:
    """Return the angle in (-pi, pi] of the points (x, y); 0 for the origin; error below 1e-15."""
    across, along = np.abs(y), np.abs(x)
    steep = across > along
    longer = np.where(steep, across, along)
    ratio = np.where(steep, along, across) / np.where(longer == 0.0, 1.0, longer)
    # Two halvings of the angle, from at most 45 degrees to 11.25, where the series is short.
    ratio = ratio / (1.0 + np.sqrt(1.0 + ratio * ratio))
    ratio = ratio / (1.0 + np.sqrt(1.0 + ratio * ratio))
    angle = 4.0 * ratio * _horner(_ARCTANGENT, ratio * ratio)
    angle = np.where(steep, math.pi / 2 - angle, angle)
    angle = np.where(x < 0.0, math.pi - angle, angle)
    return np.where(y < 0.0, -angle, angle)


def _horner(coefficients: list[float], x: Array) -> Array:
    value: Array = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value *= x
        value += coefficient
    return value
