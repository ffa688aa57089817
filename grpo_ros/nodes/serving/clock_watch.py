"""Whether somebody set a wall clock, and whether simulated time stands still."""

from __future__ import annotations

import time
from typing import Any

CLOCK_SET_NS = 20_000_000
"""A wall clock that departs by more from the steady one between two looks was set by somebody."""
CLOCK_READINGS = 3
CLOCK_STANDS_S = 1.5
"""Simulated time that has not moved for so long stands still; a slow one comes once a second."""


class ClockWatch:
    """Compares a wall clock with the steady one."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None

    def begin(self) -> None:
        """Forget how the clocks stood."""
        self._offset_ns = None

    def set_ns(self, clock: Any) -> int:
        """Return by how much the clock was set since this was last called; 0 if it was not."""
        offset_ns = clock_offset_ns(clock)
        before_ns, self._offset_ns = self._offset_ns, offset_ns
        set_ns = 0 if before_ns is None else offset_ns - before_ns
        return set_ns if abs(set_ns) > CLOCK_SET_NS else 0


class StillWatch:
    """Says whether simulated time stands still; it has to be looked at again and again."""

    def __init__(self) -> None:
        self._seen_ns, self._moved_s = -1, 0.0

    def stands(self, now_ns: int) -> bool:
        """Return whether the clock has shown this time for longer than CLOCK_STANDS_S."""
        steady_s = time.monotonic()
        if now_ns != self._seen_ns:
            self._seen_ns, self._moved_s = now_ns, steady_s
        return steady_s - self._moved_s > CLOCK_STANDS_S


def clock_offset_ns(clock: Any) -> int:
    """Return a clock's time less the steady clock's: of some readings that which took least.

    Another thread or process may come between two readings for as long as it likes.
    """
    found = []
    for _ in range(CLOCK_READINGS):
        before_ns = time.monotonic_ns()
        now_ns = int(clock.now().nanoseconds)
        took_ns = time.monotonic_ns() - before_ns
        found.append((took_ns, now_ns - before_ns - took_ns // 2))
    return min(found)[1]
