"""AdaptiveRate: a learning rate that follows how far the policy moved."""

from __future__ import annotations

import dataclasses
from typing import ClassVar


@dataclasses.dataclass
class AdaptiveRate:
    """The learning rate; smaller after moving too far, larger after moving too little.

    Args:
        rate: learning rate now.
        target: wanted KL(old || new) of a chunk after an update, in nats; 0 keeps the rate.
        minimum, maximum: bounds of the rate.
    """

    rate: float
    target: float
    minimum: float
    maximum: float

    SHRINK: ClassVar[float] = 1.0 / 1.5
    GROW: ClassVar[float] = 1.1
    STOP_FACTOR: ClassVar[float] = 8.0

    def adapt(self, kl: float) -> None:
        """Shrink by 1.5 above twice the target, grow by 1.1 below half of it."""
        if self.target <= 0.0:
            return
        if kl > 2.0 * self.target:
            self.rate = max(self.rate * self.SHRINK, self.minimum)
        elif kl < 0.5 * self.target:
            self.rate = min(self.rate * self.GROW, self.maximum)

    def is_too_far(self, kl: float) -> bool:
        """Return whether a minibatch's step should be left out: above 8 times the target."""
        return self.target > 0.0 and kl > self.STOP_FACTOR * self.target
