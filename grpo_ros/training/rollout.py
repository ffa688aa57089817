"""Rollout: what the collector hands to an algorithm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from grpo_ros.policies.base import ActionSample


@dataclasses.dataclass(frozen=True)
class Rollout:
    """M groups of G rollouts from one state each; environment n = group * G + member.

    T is the number of decisions (chunks) of the longest episode; rows beyond an episode's end are
    masked by `executed`, never dropped.

    Attributes:
        obs: field -> (N, T, *shape), what the policy perceived at each decision.
        sample: leading dimensions (N, T).
        executed: (N, T, K) bool, which steps were carried out.
        reward_terms: (N, T, K, R) float32, by `reward_names`.
        terminated: (N,) bool; truncated: (N,) bool, how the episode ended.
        final_obs: field -> (N, *shape), what was observed at the episode's end.
        outcome: (N,) float32, 1 where the verified outcome holds.
        score: (N,) float32 in [0, 1], partial credit.
        num_groups: M. group_size: G.
    """

    obs: Mapping[str, Tensor]
    sample: ActionSample
    executed: Tensor
    reward_terms: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Mapping[str, Tensor]
    outcome: Tensor
    score: Tensor
    num_groups: int
    group_size: int
    reward_names: tuple[str, ...]

    @property
    def num_env_steps(self) -> int:
        """Control steps carried out, summed over environments."""
        return int(self.executed.sum())
