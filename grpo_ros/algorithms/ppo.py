"""PPO: each decision is judged against what a critic expected of its state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.critic_estimator import CriticEstimator, PpoConfig
from grpo_ros.algorithms.policy_gradient import take
from grpo_ros.algorithms.updater import Updater
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.critic import Critic
from grpo_ros.randomness import Key
from grpo_ros.training.rollout import Rollout

__all__ = ["Ppo", "PpoConfig"]


class Ppo(Updater):
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
        super().__init__(config, policy, ranks)
        self.estimator = CriticEstimator(config, policy, generator, ranks)

    def rollouts_per_state(self, configured: int) -> int:
        """Return 1: a critic judges each rollout by itself, so each has a state of its own."""
        return 1

    @property
    def critic(self) -> Critic:
        """The value estimate."""
        return self.estimator.critic

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve policy and critic by all ranks' rollouts; `key` decides minibatches' order.

        Returns:
            Metrics by name; see `Updater.improve` and `ValueLearner.fit`.

        Raises:
            TrainingError: the update would be wrong.
        """
        estimate, judged = self.estimator.estimate(rollout)
        metrics = self.improve(rollout, estimate, key)
        return metrics | self.estimator.fit(judged, key)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything beside the policy that decides later updates, as flat tensors."""
        return {**self.gradient.state_dict(), **self.estimator.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        remaining = dict(state)
        self.estimator.load_state_dict(take(remaining, "critic/"))
        self.gradient.load_state_dict(remaining)
