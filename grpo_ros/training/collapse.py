"""CollapseAlarm: says when a policy has stopped exploring before it has learned."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

WINDOW = 10
"""Iterations over which everything must hold."""
ENTROPY_FALL = 0.1
"""Nats by which entropy has to fall over the window."""
DIVERSITY_SHARE = 0.2
"""Of the diversity at the start: below that, members of a group do the same."""
ZERO_VARIANCE = 0.8
"""Share of groups without a difference, above which hardly anything is learned."""
SOLVED = 0.9
"""Success from which there is nothing left that a collapse could lose."""
NEEDED = ("entropy", "diversity", "zero_variance_fraction", "train_success")


class CollapseAlarm:
    """Watches a run's metrics.

    The alarm is on while, over the last ten iterations, entropy falls (by a straight line through
    it), and in each of them diversity is below a fifth of what it was in the run's first ten, most
    groups agree, and success is not yet high. Groups that agree because all succeed are how
    training ends well; agreeing, alike and more certain all at once before that is collapse.

    What it says is a function of the metrics that it was given, so that a resumed run that reads
    them again says the same.
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._recent: deque[tuple[float, float, float, float]] = deque(maxlen=WINDOW)
        self._reason = ""

    def observe(self, metrics: Mapping[str, Any]) -> str:
        """Take one iteration's metrics; return why there is an alarm, or "".

        Iterations without groups say nothing of it, so the alarm stays as it was.
        """
        if all(name in metrics for name in NEEDED):
            self._reason = self._judged(metrics)
        return self._reason

    def _judged(self, metrics: Mapping[str, Any]) -> str:
        entropy, diversity, same, success = (float(metrics[name]) for name in NEEDED)
        if len(self._first) < WINDOW:
            self._first.append(diversity)
        self._recent.append((entropy, diversity, same, success))
        if len(self._recent) < WINDOW or len(self._first) < WINDOW:
            return ""
        start = sum(self._first) / WINDOW
        fall = -WINDOW * _slope([row[0] for row in self._recent])
        is_alike = all(row[1] < DIVERSITY_SHARE * start for row in self._recent)
        is_agreed = all(row[2] > ZERO_VARIANCE for row in self._recent)
        is_open = all(row[3] < SOLVED for row in self._recent)
        if not (fall > ENTROPY_FALL and is_alike and is_agreed and is_open):
            return ""
        return (
            f"the policy collapses: entropy fell by {fall:.2f} nats in {WINDOW} iterations, "
            f"members of a group differ by {diversity:.3f} where they differed by {start:.3f}, "
            f"{same:.0%} of the groups agree, and success is {success:.2f}. Raise the least "
            "noise or the entropy bonus, or lower the learning rate, and go back to an earlier "
            "checkpoint"
        )


def _slope(values: list[float]) -> float:
    """Return the slope per step of the least-squares line through values."""
    n = len(values)
    middle = 0.5 * (n - 1)
    mean = sum(values) / n
    above = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return above / sum((i - middle) ** 2 for i in range(n))
