"""What a replay gave, and its summary in words."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Literal

Clock = Literal["recorded", "commands", "rate"]
TICKED = {
    "recorded": "as they were recorded",
    "commands": "at the stamps of the recorded commands",
    "rate": "at the control rate, on the stamps of the inputs",
}
SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Difference:
    """How replayed commands differ from those that were sent.

    Attributes:
        num_sent: commands in the bag. num_compared: those at whose stamp there is one now.
        largest: of all joints and points, rad or m. joint: of which joint. at_s: when.
        num_equal: those that are equal bit for bit.
    """

    num_sent: int
    num_compared: int
    num_equal: int
    largest: float
    joint: str
    at_s: float


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a replay gave.

    Attributes:
        clock: where ticks came from. is_whole: whether runs began within the bag; else the state
            of the policy before it is not known, and chunks begin at the measured position.
        runs, ticks, commands: how many.
        held: ticks without a command, by kind. ended: why each run ended.
        interventions: time since the first tick in s, kind and reason of each.
        inference_ms: quantile -> time.
        difference: None where the bag holds no commands.
        notes: what to know.
    """

    clock: Clock
    is_whole: bool
    runs: int
    ticks: int
    commands: int
    held: Mapping[str, int]
    ended: tuple[str, ...]
    interventions: tuple[tuple[float, str, str], ...]
    inference_ms: Mapping[float, float]
    rejected: Mapping[str, int]
    difference: Difference | None
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the summary as text."""
        held = ", ".join(f"{kind} {number}" for kind, number in self.held.items()) or "none"
        lines = [
            f"{self.runs} runs, {self.ticks} ticks {TICKED[self.clock]}, "
            f"{self.commands} commands; held: {held}",
            *(f"ended: {reason}" for reason in self.ended),
        ]
        counts = Counter(kind for _, kind, _ in self.interventions)
        lines += [f"safety gate: {kind} {number}" for kind, number in counts.items()]
        lines += [
            f"  {at_s:9.3f} s {kind}: {why}" for at_s, kind, why in self.interventions[:SHOWN]
        ]
        if len(self.interventions) > SHOWN:
            lines.append(f"  and {len(self.interventions) - SHOWN} more")
        if self.rejected:
            refused = ", ".join(f"{kind} {number}" for kind, number in self.rejected.items())
            lines.append(f"inputs refused: {refused}")
        if self.inference_ms:
            times = ", ".join(f"p{100 * q:g} {ms:.3f}" for q, ms in self.inference_ms.items())
            lines.append(f"inference, ms: {times}")
        return [*lines, *self._compared(), *self.notes]

    def _compared(self) -> list[str]:
        found = self.difference
        if found is None:
            return ["the bag holds no commands to compare with"]
        text = (
            f"{found.num_sent} commands were sent, {found.num_compared} compared at equal stamps"
        )
        if not found.num_compared:
            return [text]
        if not found.largest:
            return [f"{text}: all equal"]
        return [
            f"{text}: {found.num_equal} equal, largest difference {found.largest:.3g} "
            f"('{found.joint}', {found.at_s:.3f} s)"
        ]
