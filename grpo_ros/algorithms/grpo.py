"""GRPO: each rollout is judged against the others that started from the same state."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.algorithms import advantages as group_relative
from grpo_ros.algorithms.batch import flatten_rollout
from grpo_ros.algorithms.objectives import objective_value
from grpo_ros.algorithms.policy_gradient import PolicyGradient, PolicyGradientConfig
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.errors import TrainingError
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, torch_generator
from grpo_ros.training.rollout import Rollout

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GrpoConfig(PolicyGradientConfig):
    """Settings of GRPO: the update's, and how groups become advantages."""

    baseline: group_relative.Baseline = typed.setting(
        "mean", "What a rollout is compared with: its group's mean, or the mean of the others"
    )
    divide_by_std: bool = typed.setting(
        False, "Divide advantages by the group's standard deviation"
    )
    dynamic_sampling: bool = typed.setting(True, "Weight 0 for groups whose rewards all agree")
    combine: Literal["sum", "normalise_then_sum"] = typed.setting(
        "sum", "Add objectives as they are, or normalise each in its group first"
    )


class Grpo:
    """Updates a policy from groups of rollouts (GRPO, 2402.03300). Implements Algorithm."""

    def __init__(self, config: GrpoConfig, policy: ChunkPolicy, ranks: Ranks = ONE_RANK) -> None:
        """Take the policy whose parameters are changed in place, the same on all ranks."""
        self.config, self.policy, self.ranks = config, policy, ranks
        self.gradient = PolicyGradient(config, policy, ranks)
        self.num_updates = 0

    def start(self) -> None:
        """Begin at the policy as it is now, which is the reference."""
        self.gradient.start()

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve the policy by all ranks' rollouts; `key` decides the order of minibatches.

        Returns:
            Metrics by name; see `group_metrics` and `PolicyGradient.improve`.

        Raises:
            TrainingError: the rollout has no groups to compare in, or the update would be wrong.
        """
        if rollout.group_size < 2:
            raise TrainingError(
                f"groups of {rollout.group_size}",
                expected="at least 2 rollouts from each state",
                remedy="raise group_size",
            )
        objectives, valid = self._objectives(rollout)
        advantages = self._advantages(objectives, valid)
        weight = valid.float()
        if self.config.dynamic_sampling:
            weight = weight * (~_agree(objectives, valid)).unsqueeze(1)
        batch = flatten_rollout(rollout, advantages.flatten(), weight.flatten())
        generator = torch_generator("minibatches", key)
        gather = self.ranks.gather
        outcome = rollout.outcome.view(valid.shape)
        parts = [gather(part) for part in (outcome, objectives, valid, advantages, weight)]
        metrics = group_metrics(*parts)
        with self.policy.gathered():
            entropy = self._entropy(rollout)
        metrics["entropy"] = float(gather(entropy).mean())
        metrics["masked_rows"] = float(self.ranks.sum(torch.tensor(batch.num_bad_rows)))
        metrics["weighted_steps"] = float(self.ranks.sum(batch.weight.sum()))
        metrics.update(self.gradient.improve(batch, generator))
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
        return {"num_updates": torch.tensor(self.num_updates), **self.gradient.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        remaining = dict(state)
        num_updates = remaining.pop("num_updates", torch.tensor(0))
        self.gradient.load_state_dict(remaining)
        self.num_updates = int(num_updates)

    def _objectives(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return objectives (M, G, R), and which members have all of them finite (M, G)."""
        columns = [objective_value(rollout, name) for name in self.config.objectives]
        values = torch.stack(columns, dim=-1)
        values = values.view(rollout.num_groups, rollout.group_size, -1)
        values, finite = group_relative.mask_non_finite(values)
        return values, finite.all(dim=-1)

    def _advantages(self, objectives: Tensor, valid: Tensor) -> Tensor:
        """Return advantages (M, G)."""
        weights = objectives.new_tensor(self.config.objective_weights)
        if self.config.combine == "normalise_then_sum":
            return group_relative.normalise_then_sum(
                objectives, weights, valid, self.config.baseline
            )
        return group_relative.group_advantages(
            objectives @ weights, valid, self.config.baseline, self.config.divide_by_std
        )

    @torch.no_grad()
    def _entropy(self, rollout: Rollout) -> Tensor:
        return self.policy.entropy({name: v[:, 0] for name, v in rollout.obs.items()})


def group_metrics(
    outcome: Tensor, objectives: Tensor, valid: Tensor, advantages: Tensor, weight: Tensor
) -> dict[str, float]:
    """Return how the groups of a rollout turned out, by name.

    Args:
        outcome, advantages, weight: (M, G). objectives: (M, G, R). valid: (M, G) bool.
    """
    agree = _agree(objectives, valid)
    all_fail = (~valid | (outcome < 0.5)).all(dim=1) & valid.any(dim=1)
    all_success = (~valid | (outcome >= 0.5)).all(dim=1) & valid.any(dim=1)
    weighted = advantages[weight > 0]
    spread = group_relative.group_std(objectives[..., 0], valid)
    return {
        "zero_variance_fraction": float(agree.float().mean()),
        "all_fail_fraction": float(all_fail.float().mean()),
        "all_success_fraction": float(all_success.float().mean()),
        "group_std": float(spread.mean()),
        "advantage_mean": float(weighted.mean()) if len(weighted) else 0.0,
        "advantage_std": float(weighted.std(correction=0)) if len(weighted) else 0.0,
        "advantage_min": float(weighted.min()) if len(weighted) else 0.0,
        "advantage_max": float(weighted.max()) if len(weighted) else 0.0,
        "masked_rewards": float((~valid).sum()),
    }


def _agree(objectives: Tensor, valid: Tensor) -> Tensor:
    """Return (M,) bool: all valid members of a group have the same value of every objective."""
    columns = [group_relative.members_agree(column, valid) for column in objectives.unbind(-1)]
    return torch.stack(columns).all(dim=0)
