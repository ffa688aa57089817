"""GroupEstimator: a rollout is worth what the others from the same state are not."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.algorithms import advantages as group_relative
from grpo_ros.algorithms.estimate import Estimate
from grpo_ros.algorithms.objectives import objective_value
from grpo_ros.algorithms.policy_gradient import PolicyGradientConfig
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.errors import TrainingError
from grpo_ros.training.rollout import Rollout


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
    success_buffer: int = typed.setting(
        0,
        "Groups with some successes that are kept, to stand in for groups that all fail; 0 = none",
        minimum=0,
    )
    success_buffer_age: int = typed.setting(
        10, "Updates after which a kept group is dropped", unit="updates", minimum=1
    )


class GroupEstimator:
    """Advantages relative to a rollout's own group (GRPO, 2402.03300)."""

    def __init__(self, config: GrpoConfig, ranks: Ranks = ONE_RANK) -> None:
        self.config, self.ranks = config, ranks

    def estimate(self, rollout: Rollout) -> Estimate:
        """Return the advantages (N,) of a rollout's episodes, and what its groups are like.

        Raises:
            TrainingError: the rollout has no groups to compare in.
        """
        if rollout.group_size < 2:
            raise TrainingError(
                f"groups of {rollout.group_size}",
                expected="at least 2 rollouts from each state",
                remedy="raise group_size",
            )
        objectives, valid = objectives_of(rollout, self.config.objectives)
        advantages = self._advantages(objectives, valid)
        weight = valid.float()
        if self.config.dynamic_sampling:
            weight = weight * (~agree(objectives, valid)).unsqueeze(1)
        outcome = rollout.outcome.view(valid.shape)
        parts = [outcome, objectives, valid, advantages, weight]
        metrics = group_metrics(*(self.ranks.gather(part) for part in parts))
        return Estimate(advantages.flatten(), weight.flatten(), metrics)

    def _advantages(self, objectives: Tensor, valid: Tensor) -> Tensor:
        """Return advantages (M, G)."""
        weights = objectives.new_tensor(self.config.objective_weights)
        if self.config.combine == "normalise_then_sum":
            return group_relative.normalise_then_sum(
                objectives, weights, valid, self.config.baseline, self.ranks
            )
        return group_relative.group_advantages(
            objectives @ weights, valid, self.config.baseline, self.config.divide_by_std
        )


def objectives_of(rollout: Rollout, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Return objectives (M, G, R), and which members have all of them finite (M, G)."""
    values = torch.stack([objective_value(rollout, name) for name in names], dim=-1)
    values = values.view(rollout.num_groups, rollout.group_size, -1)
    values, finite = group_relative.mask_non_finite(values)
    return values, finite.all(dim=-1)


def agree(objectives: Tensor, valid: Tensor) -> Tensor:
    """Return (M,) bool: all valid members of a group have the same value of every objective."""
    columns = [group_relative.members_agree(column, valid) for column in objectives.unbind(-1)]
    return torch.stack(columns).all(dim=0)


def group_metrics(
    outcome: Tensor, objectives: Tensor, valid: Tensor, advantages: Tensor, weight: Tensor
) -> dict[str, float]:
    """Return how the groups of a rollout turned out, by name.

    Args:
        outcome, advantages, weight: (M, G). objectives: (M, G, R). valid: (M, G) bool.
    """
    all_fail = (~valid | (outcome < 0.5)).all(dim=1) & valid.any(dim=1)
    all_success = (~valid | (outcome >= 0.5)).all(dim=1) & valid.any(dim=1)
    weighted = advantages[weight > 0]
    spread = group_relative.group_std(objectives[..., 0], valid)
    return {
        "zero_variance_fraction": float(agree(objectives, valid).float().mean()),
        "all_fail_fraction": float(all_fail.float().mean()),
        "all_success_fraction": float(all_success.float().mean()),
        "group_std": float(spread.mean()),
        "advantage_mean": float(weighted.mean()) if len(weighted) else 0.0,
        "advantage_std": float(weighted.std(correction=0)) if len(weighted) else 0.0,
        "advantage_min": float(weighted.min()) if len(weighted) else 0.0,
        "advantage_max": float(weighted.max()) if len(weighted) else 0.0,
        "masked_rewards": float((~valid).sum()),
    }
