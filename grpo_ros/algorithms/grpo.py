"""GRPO: each rollout is judged against the others that started from the same state."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.batch import flatten_rollout
from grpo_ros.algorithms.group_estimator import GroupEstimator, GrpoConfig
from grpo_ros.algorithms.policy_gradient import PolicyGradient, take
from grpo_ros.algorithms.success_buffer import SuccessBuffer
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.histograms import Histogram
from grpo_ros.training.rollout import Rollout

__all__ = ["Grpo", "GrpoConfig"]

logger = logging.getLogger(__name__)


class Grpo:
    """Updates a policy from groups of rollouts (GRPO, 2402.03300). Implements Algorithm."""

    def __init__(self, config: GrpoConfig, policy: ChunkPolicy, ranks: Ranks = ONE_RANK) -> None:
        """Take the policy whose parameters are changed in place, the same on all ranks."""
        self.config, self.policy, self.ranks = config, policy, ranks
        self.gradient = PolicyGradient(config, policy, ranks)
        self.groups = GroupEstimator(config, ranks)
        self.buffer = SuccessBuffer(config.success_buffer, config.success_buffer_age)
        self.num_updates = 0

    def start(self) -> None:
        """Begin at the policy as it is now, which is the reference."""
        self.gradient.start()

    def rollouts_per_state(self, configured: int) -> int:
        """Return how many members a group has."""
        return configured

    def decisions(self) -> list[str]:
        """Return nothing: GRPO decides nothing on the way."""
        return []

    def histograms(self) -> Mapping[str, Histogram]:
        """Return those of the last update: of advantages."""
        return self.gradient.histograms

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve the policy by all ranks' rollouts; `key` decides the order of minibatches.

        Returns:
            Metrics by name; see `group_metrics` and `PolicyGradient.improve`.

        Raises:
            TrainingError: the rollout has no groups to compare in, or the update would be wrong.
        """
        estimate = self.groups.estimate(rollout)
        metrics = dict(estimate.metrics)
        entropy = first_entropy(self.policy, rollout)
        metrics["entropy"] = float(self.ranks.gather(entropy).mean())
        fresh = None
        if self.buffer.size:
            rollout, fresh = self.buffer.fill(rollout, self.config.objectives, self.num_updates)
            estimate = self.groups.estimate(rollout)
            metrics["replayed_fraction"] = float((~fresh).float().mean())
        metrics["staleness"] = self.buffer.staleness
        batch = flatten_rollout(rollout, estimate.advantages, estimate.weight, fresh)
        metrics["masked_rows"] = float(self.ranks.sum(torch.tensor(batch.num_bad_rows)))
        metrics["weighted_steps"] = float(self.ranks.sum(batch.weight.sum()))
        metrics.update(self.gradient.improve(batch, torch_generator("minibatches", key)))
        self.num_updates += 1
        if metrics["masked_rewards"] or metrics["masked_rows"]:
            logger.warning(
                "not finite and masked: %d rewards, %d decisions",
                metrics["masked_rewards"],
                metrics["masked_rows"],
            )
        return metrics

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything beside the policy that decides later updates, as flat tensors."""
        return {
            "num_updates": torch.tensor(self.num_updates),
            **{f"buffer/{name}": value for name, value in self.buffer.state_dict().items()},
            **self.gradient.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        remaining = dict(state)
        num_updates = remaining.pop("num_updates", torch.tensor(0))
        self.buffer.load_state_dict(take(remaining, "buffer/"))
        self.gradient.load_state_dict(remaining)
        self.num_updates = int(num_updates)


@torch.no_grad()
def first_entropy(policy: ChunkPolicy, rollout: Rollout) -> Tensor:
    """Return the entropy (N,) of a policy where a rollout's first decisions were made."""
    with policy.gathered():
        return policy.entropy({name: value[:, 0] for name, value in rollout.obs.items()})
