"""Sequences: how many messages of a topic never came, by the numbers that publishers give them.

The middleware tells of what it lost itself, not of what a full history threw away, and not which
publisher a message is of. So messages are sorted into tracks, one for each publisher: a message
belongs to the track that it follows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(slots=True)
class Sequences:
    """Counts gaps in the numbers of a topic's messages.

    Args:
        count_publishers: how many publishers the topic had so far; asked where a number does
            not follow any other.

    Attributes:
        num_missing: numbers that were left out.
        num_before: numbers before the first one of each publisher: sent before we were there.
    """

    count_publishers: Callable[[], int]
    num_missing: int = 0
    num_before: int = 0
    _last: list[int] = dataclasses.field(default_factory=list)

    def note(self, number: int) -> None:
        """Take the number of the message that came next."""
        last = self._last
        for row, known in enumerate(last):
            if known + 1 == number:
                last[row] = number
                return
        below = [(known, row) for row, known in enumerate(last) if known < number]
        if not below or self.count_publishers() > len(last):
            self.num_before += number - 1
            last.append(number)
            return
        known, row = max(below)
        self.num_missing += number - known - 1
        last[row] = number
