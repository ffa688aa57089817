"""What one iteration's rollouts tell, apart from the update."""

from __future__ import annotations

import torch

from grpo_ros.training.rollout import Rollout


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """Return success, spread and diversity of the groups.

    train_success: mean outcome of all rollouts. group_std_mean: mean over groups of the outcomes'
    standard deviation. diversity: mean over groups and first decisions of the standard deviation
    of the sampled actions between members. Where groups start elsewhere too, success, score and
    reward are of those that start as episodes do, if there are any.
    """
    num_env_steps = rollout.num_env_steps
    if rollout.starts is not None and bool((rollout.starts == 0).any()):
        rollout = rollout.with_groups(torch.nonzero(rollout.starts == 0).flatten())
    shape = (rollout.num_groups, rollout.group_size)
    outcome = rollout.outcome.view(shape)
    rate = outcome.mean(dim=1)
    first = rollout.sample.chunk[:, 0].view(*shape, -1)
    return {
        "rollout_env_steps": float(num_env_steps),
        "train_success": float(outcome.mean()),
        "reward_mean": float((rollout.reward_terms.sum(dim=(1, 2, 3))).mean()),
        "score_mean": float(rollout.score.mean()),
        "group_std_mean": float(outcome.std(dim=1, unbiased=False).mean()),
        "all_fail_fraction": float((rate == 0.0).float().mean()),
        "all_success_fraction": float((rate == 1.0).float().mean()),
        "zero_variance_fraction": float(((rate == 0.0) | (rate == 1.0)).float().mean()),
        "episode_steps": float(rollout.executed.sum(dim=(1, 2)).float().mean()),
        "diversity": float(first.std(dim=1, unbiased=False).mean()),
    }
