"""Rollouts of several ranks: how one is made as long as the others, and summed up."""

from __future__ import annotations

import dataclasses

import torch

from grpo_ros.distributed.ranks import Ranks
from grpo_ros.policies.base import ActionSample
from grpo_ros.training.rollout import Rollout


def of_one_length(rollout: Rollout, ranks: Ranks) -> Rollout:
    """Return the rollout with as many decisions as that of any rank has."""
    num = torch.tensor(rollout.executed.shape[1])
    return rollout.lengthened(int(ranks.maximum(num)))


def of_all_ranks(rollout: Rollout, ranks: Ranks) -> Rollout:
    """Return all ranks' groups, without what was observed: it is large, and no metric needs it."""
    if ranks.num == 1:
        return rollout
    slim = dataclasses.replace(
        rollout,
        obs={},
        final_obs={},
        sample=ActionSample(rollout.sample.chunk, rollout.sample.log_prob),
    )
    num_groups = rollout.num_groups * ranks.num
    return dataclasses.replace(slim.changed(ranks.gather), num_groups=num_groups)
