"""Intake: the way of every message into the observation buffer, with its stamp checked."""

from __future__ import annotations

import time
from collections.abc import Callable

from builtin_interfaces.msg import Time

from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.deployment.inputs.observation_buffer import ObservationBuffer
from grpo_ros.nodes.shared import messages


class Intake:
    """Stores inputs and tells whoever waits for them.

    Args:
        buffer: that stores them.
        on_input: called after each input that was stored.
        steady: the clock of arrivals, s.
    """

    def __init__(
        self,
        buffer: ObservationBuffer,
        on_input: Callable[[], None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.buffer, self.steady, self._on_input = buffer, steady, on_input

    def take(self, what: str, stamp: Time, put: Callable[[int, float], bool]) -> None:
        """Store an input unless it is refused; a refusal is counted and kept by name.

        Args:
            what: the input, as it is called in refusals.
            stamp: of the message's header.
            put: called with the stamp in ns and the arrival in s; returns whether it was stored,
                or raises InputRefusal.
        """
        stamp_ns = messages.to_ns(stamp)
        if stamp_ns <= 0:
            self.buffer.refuse(
                "unstamped", f"{what} has stamp {stamp_ns} ns: its driver does not stamp it"
            )
            return
        self.store(what, lambda: put(stamp_ns, self.steady()))

    def store(self, what: str, put: Callable[[], bool]) -> None:
        """Call `put`, which has its stamp already; count what it raises, tell what it stored."""
        try:
            is_stored = put()
        except InputRefusal as refusal:
            self.buffer.refuse(refusal.kind, f"{what}: {refusal}")
            return
        if is_stored:
            self._on_input()
