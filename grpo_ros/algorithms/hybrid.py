"""Hybrid: groups and a critic judge the same rollouts, by turns or together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.critic_estimator import CriticEstimator, PpoConfig
from grpo_ros.algorithms.estimate import Estimate
from grpo_ros.algorithms.group_estimator import GroupEstimator, GrpoConfig
from grpo_ros.algorithms.mixing import CRITIC, GROUPS, HybridConfig, Mixing
from grpo_ros.algorithms.policy_gradient import take
from grpo_ros.algorithms.updater import Updater
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.critic import Critic
from grpo_ros.randomness import Key
from grpo_ros.training.rollout import Rollout

STD_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class HybridSettings:
    """The settings of a hybrid and of the two that it is made of."""

    hybrid: HybridConfig
    grpo: GrpoConfig
    ppo: PpoConfig


class Hybrid(Updater):
    """Updates a policy by group-relative advantages, a critic's, or both. Implements Algorithm.

    With weight lambda of the groups, A = lambda A_groups / std(A_groups) + (1 - lambda) A_critic,
    both of unit spread; at lambda = 1 and 0 the update is GRPO's and PPO's own, bit for bit. The
    critic learns from every rollout, so that it can be judged before it judges. Where the critic
    alone counts, each rollout starts from a state of its own, as PPO's do.
    """

    def __init__(
        self,
        settings: HybridSettings,
        policy: ChunkPolicy,
        generator: torch.Generator | None = None,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        """Take the policy whose parameters are changed in place; `generator`: of the critic."""
        super().__init__(settings.grpo, policy, ranks)
        self.groups = GroupEstimator(settings.grpo, ranks)
        self.estimator = CriticEstimator(settings.ppo, policy, generator, ranks)
        self.mixing = Mixing(settings.hybrid)

    @property
    def critic(self) -> Critic:
        """The value estimate."""
        return self.estimator.critic

    def rollouts_per_state(self, configured: int) -> int:
        """Return how many members the groups of the next rollout have; 1: there are none."""
        return configured if self.mixing.is_grouped else 1

    def decisions(self) -> list[str]:
        """Return what was decided since the last call, with the reasons."""
        return self.mixing.decisions()

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve policy and critic by all ranks' rollouts; `key` decides minibatches' order.

        Returns:
            Metrics by name; see `group_metrics`, `Updater.improve`, `ValueLearner.fit`.

        Raises:
            TrainingError: groups are to be compared and there are none, or the update would be
                wrong.
        """
        weight = self.mixing.weight
        by_critic, judged = self.estimator.estimate(rollout)
        is_grouped = weight > CRITIC or rollout.group_size > 1
        by_groups = self.groups.estimate(rollout) if is_grouped else None
        estimate = self._mixed(weight, by_groups, by_critic)
        metrics = self.improve(rollout, estimate, key) | {"group_weight": weight}
        metrics |= self.estimator.fit(judged, key)
        self.mixing.observe(
            float(self.ranks.gather(rollout.begun_as_episodes().outcome).nan_to_num().mean()),
            metrics["explained_variance"],
            metrics.get("zero_variance_fraction"),
        )
        return metrics

    def _mixed(self, weight: float, by_groups: Estimate | None, by_critic: Estimate) -> Estimate:
        if by_groups is None or weight == CRITIC:
            metrics = {**(by_groups.metrics if by_groups else {}), **by_critic.metrics}
            return Estimate(by_critic.advantages, by_critic.weight, metrics)
        metrics = {**by_groups.metrics, **by_critic.metrics}
        if weight == GROUPS:
            return Estimate(by_groups.advantages, by_groups.weight, metrics)
        shape = by_critic.advantages.shape
        group = by_groups.advantages.unsqueeze(1).expand(shape)
        counted = (by_groups.weight.unsqueeze(1) * by_critic.weight) > 0
        known = self.ranks.gather(group[counted])
        spread = known.std(correction=0) if len(known) else group.new_ones(())
        mixed = weight * group / (spread + STD_EPSILON) + (1.0 - weight) * by_critic.advantages
        return Estimate(mixed, by_critic.weight, metrics)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything beside the policy that decides later updates, as flat tensors."""
        mixing = {f"mixing/{name}": value for name, value in self.mixing.state_dict().items()}
        return {**self.gradient.state_dict(), **self.estimator.state_dict(), **mixing}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        remaining = dict(state)
        self.mixing.load_state_dict(take(remaining, "mixing/"))
        self.estimator.load_state_dict(take(remaining, "critic/"))
        self.gradient.load_state_dict(remaining)
