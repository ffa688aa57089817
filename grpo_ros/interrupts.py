"""Interrupts: the first SIGINT or SIGTERM stops cleanly, a later one at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from types import FrameType

SAME_S = 2.0
"""A launch delivers one Ctrl-C twice, through the process group and by itself: within so long a
second signal is the first one again."""


class Interrupts:
    """Takes SIGINT and SIGTERM from now on; made in the main thread.

    The first signal calls the attached `stop`. Where that can keep nothing yet, and at a second
    signal, SystemExit(128 + number) is raised in the main thread.
    """

    def __init__(self) -> None:
        self._stop: Callable[[], None] = _nothing
        self._can_keep: Callable[[], bool] = lambda: False
        self._first_s: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @property
    def has_come(self) -> bool:
        """Whether a signal has come."""
        return self._first_s is not None

    def attach(self, stop: Callable[[], None], can_keep: Callable[[], bool]) -> None:
        """Name what the first signal calls, and whether stopping then keeps anything."""
        self._stop, self._can_keep = stop, can_keep

    def ignore(self) -> None:
        """Take no more signals: what is torn down must not be interrupted."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._first_s is not None:
            if now_s - self._first_s < SAME_S:
                return
            raise SystemExit(128 + number)
        self._first_s = now_s
        if not self._can_keep():
            raise SystemExit(128 + number)
        self._stop()


def _nothing() -> None:
    pass
