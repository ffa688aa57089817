"""Honest numbers: intervals of success rates and of paired differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054


def wilson_interval(successes: int, episodes: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a rate (Wilson, JASA 1927); (0, 1) without episodes.

    centre = (p + z^2 / 2n) / (1 + z^2 / n),
    half width = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2).
    """
    if episodes == 0:
        return 0.0, 1.0
    rate, n = successes / episodes, float(episodes)
    scale = 1.0 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return low, high


def paired_difference(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float, float]:
    """Return mean and 95 % interval of first - second over paired outcomes.

    Args:
        first: (n,) outcomes in {0, 1}. second: (n,) on the same initial states.

    Returns:
        mean, low, high; the interval is normal with a continuity correction of 1 / n, so that
        no disagreement at all does not give zero width.
    """
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    n = len(difference)
    mean = float(difference.mean())
    deviation = float(difference.std(ddof=1)) if n > 1 else 1.0
    half = Z_95 * deviation / math.sqrt(n) + 1.0 / n
    return mean, mean - half, mean + half
