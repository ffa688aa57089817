"""make_algorithm: the updater that a configuration describes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from grpo_ros.algorithms.base import Algorithm
from grpo_ros.algorithms.grpo import Grpo, GrpoConfig
from grpo_ros.algorithms.hybrid import Hybrid, HybridSettings
from grpo_ros.algorithms.objectives import check_objectives
from grpo_ros.algorithms.ppo import Ppo, PpoConfig
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.chunk_policy import ChunkPolicy

AlgorithmConfig = GrpoConfig | PpoConfig | HybridSettings
"""The configuration of any algorithm; its class says which."""


def make_algorithm(
    config: AlgorithmConfig,
    policy: ChunkPolicy,
    generator: torch.Generator | None = None,
    ranks: Ranks = ONE_RANK,
    reward_names: Sequence[str] | None = None,
    group_size: int | None = None,
) -> Algorithm:
    """Return the updater that `config` describes, for a policy that it will change in place.

    Args:
        config: its class decides the algorithm.
        policy: changed in place by updates.
        generator: decides a critic's first weights; the same ones every time if absent.
        ranks: whose rollouts it learns from, as many rows on each.
        reward_names: that rollouts will have; None: not known yet.
        group_size: rollouts from each state; None: not known yet.

    Raises:
        ConfigurationError: what is wanted is not made for several ranks, an objective is not
            rewarded, or groups have one member.
    """
    if group_size == 1 and not isinstance(config, PpoConfig):
        raise ConfigurationError(
            "'collection.group_size' = 1",
            expected="at least 2 rollouts from each state, to be compared",
            remedy="raise group_size, or learn by algorithm=ppo",
        )
    parts = (config.grpo, config.ppo) if isinstance(config, HybridSettings) else (config,)
    for part in parts:
        if reward_names is not None:
            check_objectives(part.objectives, reward_names)
    if isinstance(config, PpoConfig):
        return Ppo(config, policy, generator, ranks)
    if isinstance(config, HybridSettings):
        if config.grpo.success_buffer:
            raise ConfigurationError(
                f"'grpo.success_buffer' = {config.grpo.success_buffer} of a hybrid",
                expected="0: what stands in for a group has no critic's advantages",
                remedy="algorithm=grpo has it",
            )
        return Hybrid(config, policy, generator, ranks)
    if config.success_buffer and ranks.num > 1:
        raise ConfigurationError(
            f"'grpo.success_buffer' = {config.success_buffer} on {ranks.num} ranks",
            expected="0: a buffer is not shared between ranks",
        )
    return Grpo(config, policy, ranks)
