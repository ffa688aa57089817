"""Updater: what every algorithm does with advantages, wherever they are from."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.batch import flatten_rollout
from grpo_ros.algorithms.estimate import Estimate
from grpo_ros.algorithms.histograms import Histogram
from grpo_ros.algorithms.policy_gradient import PolicyGradient, PolicyGradientConfig
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.rollout import Rollout

logger = logging.getLogger(__name__)


class Updater:
    """Improves a policy in place by the advantages of a rollout.

    Implements all of Algorithm but the update and the state, which say where advantages are from.

    Args:
        config: of the update.
        policy: whose parameters are changed, the same on all ranks.
        ranks: whose rollouts these are.
    """

    def __init__(
        self, config: PolicyGradientConfig, policy: ChunkPolicy, ranks: Ranks = ONE_RANK
    ) -> None:
        self.policy, self.ranks = policy, ranks
        self.gradient = PolicyGradient(config, policy, ranks)

    def start(self) -> None:
        """Begin at the policy as it is now, which is the reference."""
        self.gradient.start()

    def rollouts_per_state(self, configured: int) -> int:
        """Return how many members the groups of the next rollout have: as many as configured."""
        return configured

    def decisions(self) -> list[str]:
        """Return what was decided since the last call: nothing, where there is one way."""
        return []

    def histograms(self) -> Mapping[str, Histogram]:
        """Return those of the last update: of advantages."""
        return self.gradient.histograms

    def improve(
        self, rollout: Rollout, estimate: Estimate, key: Key, fresh: Tensor | None = None
    ) -> dict[str, float]:
        """Improve the policy; `key` decides the order of minibatches.

        Args:
            rollout: what is learned from.
            estimate: its advantages and weights.
            key: of the update.
            fresh: (N,) bool, episodes of the present policy; None: all of them.

        Returns:
            The estimate's metrics, entropy, what was masked, and those of the update.

        Raises:
            TrainingError: the update would be wrong.
        """
        batch = flatten_rollout(rollout, estimate.advantages, estimate.weight, fresh)
        metrics = dict(estimate.metrics)
        metrics["entropy"] = float(self.ranks.gather(self._first_entropy(rollout)).mean())
        metrics["masked_rows"] = float(self.ranks.sum(torch.tensor(batch.num_bad_rows)))
        metrics["weighted_steps"] = float(self.ranks.sum(batch.weight.sum()))
        metrics |= self.gradient.improve(batch, torch_generator("minibatches", key))
        masked_rewards = metrics.get("masked_rewards", 0.0)
        if masked_rewards or metrics["masked_rows"]:
            logger.warning(
                "not finite and masked: %d rewards, %d decisions",
                masked_rewards,
                metrics["masked_rows"],
            )
        return metrics

    @torch.no_grad()
    def _first_entropy(self, rollout: Rollout) -> Tensor:
        """Return the entropy (N,) where the rollout's first decisions were made."""
        with self.policy.gathered():
            first = {name: value[:, 0] for name, value in rollout.obs.items()}
            return self.policy.entropy(first)
