"""What one iteration's rollouts tell, apart from the update; see `metric_definitions`."""

from __future__ import annotations

import torch

from grpo_ros.algorithms.histograms import Histogram, share_histogram
from grpo_ros.training.rollout import Rollout

QUANTILES = (5, 25, 50, 75, 95)


def rollout_metrics(rollout: Rollout) -> dict[str, float]:
    """Return success, rewards, and spread and diversity of the groups, where there are groups.

    Where groups start elsewhere too, they are of those that start as episodes do, if any do.
    """
    num_env_steps = rollout.num_env_steps
    rollout = rollout.begun_as_episodes()
    share = torch.tensor([q / 100.0 for q in QUANTILES])
    quantiles = torch.quantile(rollout.score.float().nan_to_num(), share).tolist()
    return {
        "rollout_env_steps": float(num_env_steps),
        "train_success": float(rollout.outcome.mean()),
        "reward_mean": float((rollout.reward_terms.sum(dim=(1, 2, 3))).mean()),
        "score_mean": float(rollout.score.mean()),
        **{f"reward_q{q:02d}": value for q, value in zip(QUANTILES, quantiles, strict=True)},
        "episode_steps": float(rollout.executed.sum(dim=(1, 2)).float().mean()),
        **(_group_metrics(rollout) if rollout.group_size > 1 else {}),
    }


def _group_metrics(rollout: Rollout) -> dict[str, float]:
    shape = (rollout.num_groups, rollout.group_size)
    outcome = rollout.outcome.view(shape)
    first = rollout.sample.chunk[:, 0].view(*shape, -1)
    return {
        "group_std_mean": float(outcome.std(dim=1, unbiased=False).mean()),
        "diversity": float(first.std(dim=1, unbiased=False).mean()),
    }


def rollout_histograms(rollout: Rollout) -> dict[str, Histogram]:
    """Return how rewards are distributed over rollouts, and successes over groups."""
    found = {"reward_histogram": share_histogram(rollout.score)}
    if rollout.group_size > 1:
        rate = rollout.outcome.view(rollout.num_groups, rollout.group_size).mean(dim=1)
        found["group_success_histogram"] = share_histogram(rate)
    return found
