"""GRPO: each rollout is judged against the others that started from the same state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.algorithms.group_estimator import GroupEstimator, GrpoConfig
from grpo_ros.algorithms.policy_gradient import take
from grpo_ros.algorithms.success_buffer import SuccessBuffer
from grpo_ros.algorithms.updater import Updater
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key
from grpo_ros.training.rollout import Rollout

__all__ = ["Grpo", "GrpoConfig"]


class Grpo(Updater):
    """Updates a policy from groups of rollouts (GRPO, 2402.03300). Implements Algorithm."""

    def __init__(self, config: GrpoConfig, policy: ChunkPolicy, ranks: Ranks = ONE_RANK) -> None:
        """Take the policy whose parameters are changed in place, the same on all ranks."""
        super().__init__(config, policy, ranks)
        self.config = config
        self.groups = GroupEstimator(config, ranks)
        self.buffer = SuccessBuffer(config.success_buffer, config.success_buffer_age)
        self.num_updates = 0

    def update(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Improve the policy by all ranks' rollouts; `key` decides the order of minibatches.

        Returns:
            Metrics by name; those of groups are of what was collected, whatever stood in for it.

        Raises:
            TrainingError: the rollout has no groups to compare in, or the update would be wrong.
        """
        estimate, fresh = self.groups.estimate(rollout), None
        collected = dict(estimate.metrics)
        if self.buffer.size:
            rollout, fresh = self.buffer.fill(rollout, self.config.objectives, self.num_updates)
            estimate = dataclasses.replace(self.groups.estimate(rollout), metrics=collected)
            collected["replayed_fraction"] = float((~fresh).float().mean())
        collected["staleness"] = self.buffer.staleness
        estimate = dataclasses.replace(estimate, metrics=collected)
        self.num_updates += 1
        return self.improve(rollout, estimate, key, fresh)

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
