"""Interleaved timing: contenders take turns, so that a change of load meets all of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per call of one contender."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        """Median seconds per call."""
        return float(np.median(self.seconds))

    def quantile(self, q: float) -> float:
        """Seconds per call at quantile q."""
        return float(np.quantile(self.seconds, q))


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, Timing]:
    """Call every contender once per round, in turn; return the timings."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, call in contenders.items():
            began = time.perf_counter()
            call()
            if turn >= warm_up:
                found[name].append(time.perf_counter() - began)
    return {name: Timing(np.array(seconds)) for name, seconds in found.items()}
