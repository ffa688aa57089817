"""PPO: each decision is judged against what a critic expected of its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.algorithms.batch import flatten_rollout
from grpo_ros.algorithms.gae import (
    chunk_rewards,
    explained_variance,
    generalised_advantages,
    normalise_advantages,
)
from grpo_ros.algorithms.objectives import weighted_steps
from grpo_ros.algorithms.policy_gradient import PolicyGradient, PolicyGradientConfig, take
from grpo_ros.algorithms.value_learner import CriticConfig, ValueLearner
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.base import Observation
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.critic import Critic
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
    critic: CriticConfig = typed.setting(factory=CriticConfig, description="The value estimate")


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the critic makes of a rollout; all (N, T).

    Attributes:
        advantages: before normalisation. values: estimates. returns: what they are fitted to.
        valid: decisions that were executed, with finite rewards and observations.
    """

    advantages: Tensor
    values: Tensor
    returns: Tensor
    valid: Tensor


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
        generator = generator or torch.Generator().manual_seed(0)
        size, critic = policy.num_features, config.critic
        self.critic = Critic(size, critic.hidden, generator, critic.activation)
        self.value = ValueLearner(config.critic, self.critic, ranks)

    def start(self) -> None:
        """Begin at the policy as it is now, which is the reference."""
        self.gradient.start()

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve policy and critic by all ranks' rollouts; `key` decides minibatches' order.

        Returns:
            Metrics by name; see `PolicyGradient.improve` and `ValueLearner.fit`.

        Raises:
            TrainingError: the update would be wrong.
        """
        num_episodes, num_decisions = rollout.executed.shape[:2]
        seen = {name: value.flatten(0, 1) for name, value in rollout.obs.items()}
        with self.policy.gathered():
            features = self.features(seen).view(num_episodes, num_decisions, -1)
            judged = self.judge(rollout, features)
            entropy = self._entropy(rollout)
        valid = judged.valid
        advantages = judged.advantages
        if self.config.normalise_advantages:
            advantages = normalise_advantages(advantages, valid, self.ranks)
        batch = flatten_rollout(rollout, advantages, valid.float())
        gather = self.ranks.gather
        values, returns = gather(judged.values[valid]), gather(judged.returns[valid])
        metrics = {
            "explained_variance": explained_variance(values, returns),
            "return_mean": float(returns.mean()) if len(returns) else 0.0,
            "masked_rows": float(self.ranks.sum(torch.tensor(batch.num_bad_rows))),
            "entropy": float(gather(entropy).mean()),
        }
        metrics |= self.gradient.improve(batch, torch_generator("minibatches", key))
        if len(returns):
            metrics |= self.value.fit(
                features[valid],
                judged.values[valid],
                judged.returns[valid],
                torch_generator("critic_minibatches", key),
            )
        return metrics

    @torch.no_grad()
    def features(self, obs: Observation) -> Tensor:
        """Return normalised features (B, F) of what was perceived, field -> (B, ...)."""
        return self.policy.critic_features(obs)

    def judge(self, rollout: Rollout, features: Tensor) -> Judged:
        """Return advantages, estimates and returns of every decision.

        Args:
            rollout: (N, T).
            features: (N, T, F) normalised.
        """
        steps = weighted_steps(rollout, self.config.objectives, self.config.objective_weights)
        executed = rollout.executed
        acted = executed.any(dim=2)
        rewards, discounts = chunk_rewards(steps, executed, self.config.discount)
        values = self.value.estimate(features)
        following = torch.cat([values[:, 1:], values[:, -1:]], dim=1)
        last = acted.sum(dim=1).clamp(min=1) - 1
        ended = torch.arange(acted.shape[1]) == last.unsqueeze(1)
        with torch.no_grad():
            ends = self.policy.perceive(rollout.final_obs)
        final = self.value.estimate(self.features(ends)).unsqueeze(1)
        next_values = torch.where(ended, final, following)
        terminated = ended & rollout.terminated.unsqueeze(1)
        advantages = generalised_advantages(
            rewards, discounts, values, next_values, terminated, ended, self.config.trace_decay
        )
        finite = torch.isfinite(advantages) & torch.isfinite(features).all(dim=2)
        # A bad number spoils what leads up to it: the whole episode is left out.
        valid = acted & (finite | ~acted).all(dim=1, keepdim=True)
        returns = torch.where(valid, advantages + values, 0.0)
        return Judged(torch.where(valid, advantages, 0.0), values, returns, valid)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything beside the policy that decides later updates, as flat tensors."""
        critic = {f"critic/{name}": value for name, value in self.value.state_dict().items()}
        return {**self.gradient.state_dict(), **critic}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        remaining = dict(state)
        self.value.load_state_dict(take(remaining, "critic/"))
        self.gradient.load_state_dict(remaining)

    @torch.no_grad()
    def _entropy(self, rollout: Rollout) -> Tensor:
        return self.policy.entropy({name: v[:, 0] for name, v in rollout.obs.items()})
