"""Group-relative advantages: pure functions of (M, G) rewards, M groups of G members.

A member whose reward is not finite is masked (`valid` False): it gets advantage 0 and takes no
part in its group's statistics, so that it cannot poison the others.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import ONE_RANK, Ranks

Baseline = Literal["mean", "leave_one_out"]

STD_EPSILON = 1e-6


def mask_non_finite(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Return rewards with non-finite entries set to 0, and which were finite, same shape."""
    valid = torch.isfinite(rewards)
    return torch.where(valid, rewards, torch.zeros_like(rewards)), valid


def group_mean(rewards: Tensor, valid: Tensor) -> Tensor:
    """Return mean_i r_i over the valid members of each group, (M, 1); 0 where none is."""
    total = torch.where(valid, rewards, 0.0).sum(dim=1, keepdim=True)
    return total / valid.sum(dim=1, keepdim=True).clamp(min=1)


def group_std(rewards: Tensor, valid: Tensor) -> Tensor:
    """Return sqrt(mean_i (r_i - mean)^2) over the valid members of each group, (M, 1)."""
    centred = rewards - group_mean(rewards, valid)
    return group_mean(centred.square(), valid).sqrt()


def leave_one_out_mean(rewards: Tensor, valid: Tensor) -> Tensor:
    """Return b_i = sum_{j != i} r_j / (G - 1) over valid members, (M, G); r_i where alone.

    RLOO (2402.14740). r_i - b_i = (r_i - mean) G / (G - 1). Unbiased where members are drawn
    independently, which opposite noise (collection.antithetic) is not.
    """
    kept = torch.where(valid, rewards, 0.0)
    others = valid.sum(dim=1, keepdim=True) - valid.long()
    mean = (kept.sum(dim=1, keepdim=True) - kept) / others.clamp(min=1)
    return torch.where(others > 0, mean, rewards)


def group_advantages(
    rewards: Tensor, valid: Tensor, baseline: Baseline = "mean", divide_by_std: bool = False
) -> Tensor:
    """Return A_i = r_i - b_i, or (r_i - b_i) / (std + epsilon), in each group.

    GRPO (2402.03300) has b = group mean and divides by the group's standard deviation; Dr. GRPO
    (2503.20783) does not divide, because that weighs groups by their difficulty; RLOO (2402.14740)
    has b_i = mean of the others.

    Args:
        rewards: (M, G) float32. valid: (M, G) bool.
        baseline: mean or leave_one_out.
        divide_by_std: whether to divide.

    Returns:
        (M, G) float32, 0 where not valid.
    """
    is_mean = baseline == "mean"
    center = group_mean(rewards, valid) if is_mean else leave_one_out_mean(rewards, valid)
    advantages = rewards - center
    known = valid
    if divide_by_std:
        advantages = advantages / (group_std(rewards, valid) + STD_EPSILON)
        # Equal rewards and their mean differ by rounding, which must not be divided by itself.
        known = valid & ~members_agree(rewards, valid).unsqueeze(1)
    return torch.where(known, advantages, 0.0)


def members_agree(rewards: Tensor, valid: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Return (M,) bool: the valid rewards of a group span no more than `tolerance`."""
    high = torch.where(valid, rewards, -torch.inf).amax(dim=1)
    low = torch.where(valid, rewards, torch.inf).amin(dim=1)
    return high - low <= tolerance


def normalise_then_sum(
    objectives: Tensor,
    weights: Tensor,
    valid: Tensor,
    baseline: Baseline = "mean",
    ranks: Ranks = ONE_RANK,
) -> Tensor:
    """Return advantages of several objectives, each normalised in its group before they are added.

    GDPO (2601.05242): A_r = (r - mean_group r) / std_group r for each objective, then
    S = sum_r w_r A_r, then A = (S - mean_batch S) / std_batch S. Adding first would let unlike
    rewards with equal sums collapse to equal advantages.

    Args:
        objectives: (M, G, R) float32. weights: (R,). valid: (M, G) bool.
        baseline: of each objective.
        ranks: whose groups the batch is of.

    Returns:
        (M, G) float32, 0 where not valid.
    """
    total = torch.zeros_like(objectives[..., 0])
    for r in range(objectives.shape[-1]):
        normalised = group_advantages(objectives[..., r], valid, baseline, divide_by_std=True)
        total = total + weights[r] * normalised
    return standardise(total, valid, ranks)


def standardise(values: Tensor, valid: Tensor, ranks: Ranks = ONE_RANK) -> Tensor:
    """Return (x - mean) / (std + epsilon) over all ranks' valid entries together, 0 elsewhere."""
    known = ranks.gather(values[valid])
    if not len(known):
        return torch.zeros_like(values)
    scaled = (values - known.mean()) / (known.std(correction=0) + STD_EPSILON)
    return torch.where(valid, scaled, 0.0)
