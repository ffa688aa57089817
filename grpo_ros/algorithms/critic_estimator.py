"""CriticEstimator: a decision is worth more or less than a critic expected of its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.algorithms.estimate import Estimate
from grpo_ros.algorithms.gae import (
    chunk_rewards,
    explained_variance,
    generalised_advantages,
    normalise_advantages,
)
from grpo_ros.algorithms.objectives import VERIFIED, weighted_steps
from grpo_ros.algorithms.policy_gradient import PolicyGradientConfig
from grpo_ros.algorithms.value_learner import CriticConfig, ValueLearner
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.base import Observation
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.critic import Critic, with_time
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.rollout import Rollout


@dataclasses.dataclass(frozen=True)
class PpoConfig(PolicyGradientConfig):
    """Settings of PPO: the update's, and how rewards become advantages."""

    discount: float = typed.setting(
        0.9975, "Weight of a reward one control step later (gamma)", minimum=0.0, maximum=1.0
    )
    trace_decay: float = typed.setting(
        0.95, "Weight of the next decision's advantage (lambda)", minimum=0.0, maximum=1.0
    )
    normalise_advantages: bool = typed.setting(True, "Zero mean and unit spread in each rollout")
    time_limit: Literal["auto", "end", "bootstrap"] = typed.setting(
        "auto",
        "What follows an episode that its time limit cuts: nothing (end), or what the critic "
        "expects of its last state (bootstrap); auto: bootstrap where nothing verified counts",
    )
    critic: CriticConfig = typed.setting(factory=CriticConfig, description="The value estimate")

    @property
    def is_end(self) -> bool:
        """Whether nothing follows where the time limit cuts an episode.

        What is verified is verified within the limit. An estimate of what might have followed
        would reward waiting in states that usually succeed, and the critic would then learn from
        its own estimates that this is as good as success.
        """
        is_verified = not set(VERIFIED).isdisjoint(self.objectives)
        return self.time_limit == "end" or (self.time_limit == "auto" and is_verified)

    def critic_size(self, num_features: int) -> int:
        """Return how many numbers a critic is given: a policy's features, perhaps the time."""
        return num_features + self.is_end


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the critic makes of a rollout; all (N, T) but the features.

    Attributes:
        features: (N, T, O) that the critic is given of each decision.
        advantages: before normalisation. values: estimates. returns: what they are fitted to.
        valid: decisions that were executed, with finite rewards and observations.
    """

    features: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    valid: Tensor


class CriticEstimator:
    """Advantages by GAE, and the critic that they rest on.

    Args:
        config: settings.
        policy: gives the critic's features.
        generator: decides the critic's first weights; the same ones every time if absent.
        ranks: whose rollouts these are.
    """

    def __init__(
        self,
        config: PpoConfig,
        policy: ChunkPolicy,
        generator: torch.Generator | None = None,
        ranks: Ranks = ONE_RANK,
    ) -> None:
        self.config, self.policy, self.ranks = config, policy, ranks
        generator = generator or torch.Generator().manual_seed(0)
        size, critic = config.critic_size(policy.num_features), config.critic
        self.critic = Critic(size, critic.hidden, generator, critic.activation)
        self.value = ValueLearner(config.critic, self.critic, ranks)

    def estimate(self, rollout: Rollout) -> tuple[Estimate, Judged]:
        """Return the advantages (N, T) of a rollout's decisions, and what `fit` needs of them."""
        judged = self.judge(rollout)
        advantages, valid = judged.advantages, judged.valid
        if self.config.normalise_advantages:
            advantages = normalise_advantages(advantages, valid, self.ranks)
        values = self.ranks.gather(judged.values[valid])
        returns = self.ranks.gather(judged.returns[valid])
        metrics = {
            "explained_variance": explained_variance(values, returns),
            "return_mean": float(returns.mean()) if len(returns) else 0.0,
        }
        return Estimate(advantages, valid.float(), metrics), judged

    def judge(self, rollout: Rollout) -> Judged:
        """Return advantages, estimates and returns of every decision."""
        num_episodes, num_decisions = rollout.executed.shape[:2]
        seen = {name: value.flatten(0, 1) for name, value in rollout.obs.items()}
        with torch.no_grad(), self.policy.gathered():
            features = self._features(seen).view(num_episodes, num_decisions, -1)
            ends = self._features(self.policy.perceive(rollout.final_obs))
        if self.config.is_end:
            passed = rollout.time_passed()
            features, ends = with_time(features, passed[:, :-1]), with_time(ends, passed[:, -1])
        executed = rollout.executed
        acted = executed.any(dim=2)
        steps = weighted_steps(rollout, self.config.objectives, self.config.objective_weights)
        rewards, discounts = chunk_rewards(steps, executed, self.config.discount)
        values = self.value.estimate(features)
        following = torch.cat([values[:, 1:], values[:, -1:]], dim=1)
        last = acted.sum(dim=1).clamp(min=1) - 1
        ended = torch.arange(acted.shape[1]) == last.unsqueeze(1)
        final = self.value.estimate(ends).unsqueeze(1)
        next_values = torch.where(ended, final, following)
        is_over = torch.ones_like(rollout.terminated) if self.config.is_end else rollout.terminated
        terminated = ended & is_over.unsqueeze(1)
        advantages = generalised_advantages(
            rewards, discounts, values, next_values, terminated, ended, self.config.trace_decay
        )
        finite = torch.isfinite(advantages) & torch.isfinite(features).all(dim=2)
        # A bad number spoils what leads up to it: the whole episode is left out.
        valid = acted & (finite | ~acted).all(dim=1, keepdim=True)
        returns = torch.where(valid, advantages + values, 0.0)
        advantages = torch.where(valid, advantages, 0.0)
        return Judged(features, advantages, values, returns, valid)

    def fit(self, judged: Judged, key: Key) -> dict[str, float]:
        """Fit the critic to all ranks' returns; `key` decides minibatches. Returns metrics."""
        valid = judged.valid
        if not int(self.ranks.sum(valid.sum())):
            return {}
        return self.value.fit(
            judged.features[valid],
            judged.values[valid],
            judged.returns[valid],
            torch_generator("critic_minibatches", key),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return critic and optimiser as flat tensors."""
        return {f"critic/{name}": value for name, value in self.value.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` gave, its names without `critic/`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        self.value.load_state_dict(state)

    def _features(self, seen: Observation) -> Tensor:
        """Return normalised features (B, F) of what was perceived, field -> (B, ...)."""
        return self.policy.critic_features(seen)
