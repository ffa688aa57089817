"""PPO: each decision is judged against what a critic expected of its state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.batch import flatten_rollout
from grpo_ros.algorithms.critic_estimator import CriticEstimator, PpoConfig
from grpo_ros.algorithms.grpo import first_entropy
from grpo_ros.algorithms.policy_gradient import PolicyGradient
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.histograms import Histogram
from grpo_ros.training.rollout import Rollout

__all__ = ["Ppo", "PpoConfig"]


class Ppo:
    """Updates a policy and a critic (PPO, 1707.06347). Implements Algorithm.

    The policy's update is GRPO's own, on advantages by GAE instead of by groups.
    """

    def __init__(
        self,
        config: PpoConfig,
        policy: ChunkPolicy,
        generator: torch.Generator | None = None,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        """Take the policy whose parameters are changed in place; `generator`: of the critic."""
        self.config, self.policy, self.ranks = config, policy, ranks
        self.gradient = PolicyGradient(config, policy, ranks)
        self.estimator = CriticEstimator(config, policy, generator, ranks)

    @property
    def critic(self) -> torch.nn.Module:
        """The value estimate."""
        return self.estimator.critic

    def start(self) -> None:
        """Begin at the policy as it is now, which is the reference."""
        self.gradient.start()

    def rollouts_per_state(self, configured: int) -> int:
        """Return how many rollouts start from each state: PPO takes any number."""
        return configured

    def decisions(self) -> list[str]:
        """Return nothing: PPO decides nothing on the way."""
        return []

    def histograms(self) -> Mapping[str, Histogram]:
        """Return those of the last update: of advantages."""
        return self.gradient.histograms

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve policy and critic by all ranks' rollouts; `key` decides minibatches' order.

        Returns:
            Metrics by name; see `PolicyGradient.improve` and `ValueLearner.fit`.

        Raises:
            TrainingError: the update would be wrong.
        """
        estimate, judged = self.estimator.estimate(rollout)
        batch = flatten_rollout(rollout, estimate.advantages, estimate.weight)
        metrics = dict(estimate.metrics)
        metrics["masked_rows"] = float(self.ranks.sum(torch.tensor(batch.num_bad_rows)))
        entropy = first_entropy(self.policy, rollout)
        metrics["entropy"] = float(self.ranks.gather(entropy).mean())
        metrics |= self.gradient.improve(batch, torch_generator("minibatches", key))
        return metrics | self.estimator.fit(judged, key)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything beside the policy that decides later updates, as flat tensors."""
        return {**self.gradient.state_dict(), **self.estimator.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        critic = {name: value for name, value in state.items() if name.startswith("critic/")}
        self.estimator.load_state_dict(critic)
        self.gradient.load_state_dict({k: v for k, v in state.items() if k not in critic})
