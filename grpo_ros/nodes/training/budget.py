"""Budget: how often something may be done beside training, and for how much of its time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Budget:
    """Lets something be done no more often than a rate, and within a share of wall-clock time.

    What takes longer than its share of the period is done the less often for it.

    Args:
        rate_hz: at most.
        share: of wall-clock time, in (0, 1].
    """

    def __init__(self, rate_hz: float, share: float) -> None:
        self._period_s, self._share = 1.0 / rate_hz, share
        self._due_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it may be done now."""
        return time.monotonic() >= self._due_s

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Count what is done within as time that was spent."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            spent_s = time.monotonic() - began_s
            self._due_s = began_s + max(self._period_s, spent_s / self._share)
