"""Latency windows: quantiles of the last measurements, for diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence


class LatencyWindow:
    """Keeps the last measurements of one latency.

    Args:
        size: how many.
    """

    def __init__(self, size: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=size)

    def add(self, seconds: float) -> None:
        """Add one measurement, in seconds."""
        self._values.append(seconds)

    def __len__(self) -> int:
        return len(self._values)

    def quantiles_ms(self, shares: Sequence[float] = (0.5, 0.99, 1.0)) -> Mapping[float, float]:
        """Return share -> milliseconds (nearest rank); empty without measurements."""
        ranked = sorted(self._values)
        if not ranked:
            return {}
        last = len(ranked) - 1
        return {share: 1e3 * ranked[min(last, int(share * len(ranked)))] for share in shares}
