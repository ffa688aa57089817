"""Estimate: what a rollout's decisions were worth, as an estimator of advantages sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Advantages of a rollout's decisions.

    Attributes:
        advantages: (N,) of each episode, or (N, T) of each decision.
        weight: (N,) or (N, T) in [0, 1], of each in the loss.
        metrics: by name.
    """

    advantages: Tensor
    weight: Tensor
    metrics: Mapping[str, float]
