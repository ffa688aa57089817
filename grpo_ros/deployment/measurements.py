"""Measurement windows: quantiles of the last measurements, for diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence


class MeasurementWindow:
    """Keeps the last measurements of one quantity.

    Args:
        size: how many.
    """

    def __init__(self, size: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Add one measurement."""
        self._values.append(value)

    def __len__(self) -> int:
        return len(self._values)

    def quantiles(self, shares: Sequence[float] = (0.5, 0.99, 1.0)) -> Mapping[float, float]:
        """Return share -> measurement (nearest rank); empty without measurements."""
        ranked = sorted(self._values)
        if not ranked:
            return {}
        last = len(ranked) - 1
        return {share: ranked[min(last, int(share * len(ranked)))] for share in shares}
