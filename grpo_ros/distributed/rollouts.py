"""Rollouts of several ranks: how one is cut up, made as long as the others, and summed up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import Ranks
from grpo_ros.policies.base import ActionSample
from grpo_ros.training.rollout import Rollout


def own_groups(rollout: Rollout, ranks: Ranks) -> Rollout:
    """Return a rank's share of a rollout's groups."""
    groups = ranks.share(rollout.num_groups)
    size = rollout.group_size
    rows = slice(groups.start * size, groups.stop * size)
    part = _changed(rollout, lambda value: value[rows])
    return dataclasses.replace(part, num_groups=groups.stop - groups.start)


def of_one_length(rollout: Rollout, ranks: Ranks) -> Rollout:
    """Return the rollout with as many decisions as that of any rank has.

    Added ones repeat the last, and are not executed: on one rank, too, the rows of an episode
    that ended earlier than another are there and masked.
    """
    num = rollout.executed.shape[1]
    missing = int(ranks.maximum(torch.tensor(num))) - num
    if missing == 0:
        return rollout

    def longer(value: Tensor) -> Tensor:
        return torch.cat([value, value[:, -1:].expand(-1, missing, *value.shape[2:])], dim=1)

    sample = _changed_sample(rollout.sample, longer)
    executed, rewards = longer(rollout.executed), longer(rollout.reward_terms)
    executed[:, num:], rewards[:, num:] = False, 0.0
    return dataclasses.replace(
        rollout,
        obs={name: longer(value) for name, value in rollout.obs.items()},
        sample=sample,
        executed=executed,
        reward_terms=rewards,
    )


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
    return dataclasses.replace(_changed(slim, ranks.gather), num_groups=num_groups)


def _changed(rollout: Rollout, change: Callable[[Tensor], Tensor]) -> Rollout:
    """Return a rollout each of whose tensors is changed."""
    return dataclasses.replace(
        rollout,
        obs={name: change(value) for name, value in rollout.obs.items()},
        sample=_changed_sample(rollout.sample, change),
        executed=change(rollout.executed),
        reward_terms=change(rollout.reward_terms),
        terminated=change(rollout.terminated),
        truncated=change(rollout.truncated),
        final_obs={name: change(value) for name, value in rollout.final_obs.items()},
        outcome=change(rollout.outcome),
        score=change(rollout.score),
    )


def _changed_sample(sample: ActionSample, change: Callable[[Tensor], Tensor]) -> ActionSample:
    latents = {name: change(value) for name, value in sample.latents.items()}
    return ActionSample(change(sample.chunk), change(sample.log_prob), latents)
