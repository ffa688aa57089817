"""Whether what a robot observes lies in what training saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import Contract

ROUNDING = 1e-6


class TrainingRange:
    """Flags observations outside the training data's minimum and maximum, per component.

    Args:
        contract: fields without statistics are not judged.
        margin: share of each component's span that it may lie outside.
    """

    def __init__(self, contract: Contract, margin: float) -> None:
        self.counts: Counter[str] = Counter()
        self._names: list[str] = []
        self._owners: list[str] = []
        lowest: list[float] = []
        highest: list[float] = []
        for field in contract.state_fields:
            if field.statistics is None:
                continue
            self._names.append(field.name)
            low, high = np.array(field.statistics.minimum), np.array(field.statistics.maximum)
            slack = margin * (high - low) + ROUNDING
            lowest += (low - slack).tolist()
            highest += (high + slack).tolist()
            self._owners += [field.name] * low.size
        self._low, self._high = np.array(lowest), np.array(highest)

    def judge(self, obs: Mapping[str, npt.NDArray[Any]]) -> tuple[str, ...]:
        """Count and return the fields of a (1, ...) observation that lie outside."""
        if not self._names:
            return ()
        values = np.concatenate([obs[name].ravel() for name in self._names])
        outside = (values < self._low) | (values > self._high)
        if not outside.any():
            return ()
        found = tuple(dict.fromkeys(self._owners[i] for i in np.flatnonzero(outside)))
        self.counts.update(found)
        return found
