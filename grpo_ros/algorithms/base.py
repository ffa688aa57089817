"""The Algorithm protocol: what a trainer needs of an updater."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from grpo_ros.algorithms.histograms import Histogram
from grpo_ros.randomness import Key
from grpo_ros.training.rollout import Rollout


class Algorithm(Protocol):
    """Improves a policy in place, one rollout at a time."""

    def start(self) -> None:
        """Begin at the policy as it is now: it has been cloned."""

    def rollouts_per_state(self, configured: int) -> int:
        """Return how many members the groups of the next rollout have.

        Args:
            configured: as many as the settings want.
        """

    def decisions(self) -> list[str]:
        """Return what was decided about the way of learning since the last call, with reasons."""

    def histograms(self) -> Mapping[str, Histogram]:
        """Return those of the last update, by name."""

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve the policy; `key` decides all randomness. Returns metrics by name.

        Raises:
            TrainingError: going on would give wrong results.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything beside the policy that decides later updates, as flat tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
