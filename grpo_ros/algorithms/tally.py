"""Tally: counts and means over the minibatches of one update."""

from __future__ import annotations

import math
from collections.abc import Mapping

from grpo_ros.errors import TrainingError

LAST_EPOCH = ("approx_kl",)
"""Metrics that grow during an update and whose mean over the last epoch is reported; statistics of
the ratios are only measured there."""
MINIMUM, MAXIMUM = ("ratio_min",), ("ratio_max",)


class Tally:
    """Collects what each minibatch reports.

    Attributes:
        gradient_steps: optimiser steps taken.
        skipped_non_finite: minibatches without a step, as their loss or gradient was not finite.
        skipped_too_far: minibatches without a step, as the policy had moved too far already.
        is_last_epoch: whether the present pass is the last one.
        ratio_error: largest |ratio - 1| before the first step; None until it was measured.
    """

    def __init__(self) -> None:
        self.gradient_steps = self.skipped_non_finite = self.skipped_too_far = 0
        self.is_last_epoch = False
        self.ratio_error: float | None = None
        self._epochs: list[list[Mapping[str, float]]] = []

    def begin_epoch(self, is_last: bool = True) -> None:
        """Start another pass."""
        self.is_last_epoch = is_last
        self._epochs.append([])

    def add(self, entries: Mapping[str, float]) -> None:
        """Take the metrics of one minibatch."""
        self._epochs[-1].append(entries)

    def metrics(self) -> dict[str, float]:
        """Return metrics by name; those that no minibatch reported are absent."""
        names = dict.fromkeys(
            name for epoch in self._epochs for entries in epoch for name in entries
        )
        values = {name: self.value(name) for name in names}
        return values | {
            "gradient_steps": float(self.gradient_steps),
            "skipped_non_finite": float(self.skipped_non_finite),
            "skipped_too_far": float(self.skipped_too_far),
            "first_minibatch_ratio_error": math.nan
            if self.ratio_error is None
            else self.ratio_error,
        }

    def value(self, name: str) -> float:
        """Return one metric over the update: mean, last epoch's mean, minimum or maximum."""
        epochs = [[e[name] for e in epoch if name in e] for epoch in self._epochs]
        epochs = [epoch for epoch in epochs if epoch]
        if not epochs:
            return math.nan
        chosen = epochs[-1] if name in LAST_EPOCH else [v for epoch in epochs for v in epoch]
        if name in MINIMUM:
            return min(chosen)
        if name in MAXIMUM:
            return max(chosen)
        return sum(chosen) / len(chosen)

    def raise_if_all_non_finite(self) -> None:
        """Raise TrainingError where not one minibatch had a finite gradient."""
        if self.skipped_non_finite and not self.gradient_steps and not self.skipped_too_far:
            raise TrainingError(
                f"loss or gradient was not finite in all {self.skipped_non_finite} minibatches",
                expected="finite gradients",
                remedy="lower the learning rate, or look for extreme rewards",
            )
