"""Policy-gradient losses: pure functions of (B, K) log-likelihoods, B chunks of K steps.

`executed` (B, K) says which steps were carried out; the others never matter.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import ONE_RANK, Ranks

RatioReduction = Literal["step", "chunk", "mean"]


def log_ratio(
    log_prob: Tensor, old_log_prob: Tensor, executed: Tensor, reduction: RatioReduction
) -> Tensor:
    """Return the log of the likelihood ratio that each step's surrogate uses, (B, K).

    With d_k = log pi(a_k) - log pi_old(a_k):

        step:   d_k
        chunk:  sum_j d_j, one ratio for the whole chunk
        mean:   sum_j d_j / (number of executed steps), the sequence ratio of GSPO (2507.18071)

    sums over executed steps; 0 where a step was not executed.
    """
    difference = torch.where(executed, log_prob - old_log_prob, 0.0)
    if reduction == "step":
        return difference
    total = difference.sum(dim=-1, keepdim=True)
    if reduction == "mean":
        total = total / executed.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(executed, total, 0.0)


def clipped_surrogate(
    log_ratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """Return the loss -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), (B, K).

    PPO (1707.06347); clip_high > clip_low is DAPO's clip-higher (2503.14476).

    Args:
        log_ratios: (B, K), log r.
        advantages: (B, 1) or (B, K).
        clip_low, clip_high: distances from 1.
    """
    ratio = log_ratios.exp()
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def clipped_low(log_ratios: Tensor, advantages: Tensor, clip_low: float) -> Tensor:
    """Return where the lower bound cuts the gradient off: r < 1 - clip_low and A < 0, (B, K)."""
    return (log_ratios.exp() < 1.0 - clip_low) & (advantages < 0.0)


def clipped_high(log_ratios: Tensor, advantages: Tensor, clip_high: float) -> Tensor:
    """Return where the upper bound cuts the gradient off: r > 1 + clip_high and A > 0, (B, K)."""
    return (log_ratios.exp() > 1.0 + clip_high) & (advantages > 0.0)


def approximate_kl(log_ratios: Tensor) -> Tensor:
    """Return the k3 estimate r - 1 - log r of KL(old || new) from samples of old, same shape.

    Schulman, "Approximating KL divergence" (2020): unbiased, never negative. r = new / old.
    """
    return torch.expm1(log_ratios) - log_ratios


def weighted_sum(values: Tensor, weight: Tensor) -> Tensor:
    """Return sum(weight * values); an entry of weight 0 gives no gradient even if not finite."""
    return (torch.where(weight != 0, values, 0.0) * weight).sum()


def effective_sample_fraction(
    log_ratios: Tensor, weight: Tensor, ranks: Ranks = ONE_RANK
) -> Tensor:
    """Return (sum w r)^2 / (sum w sum w r^2) in (0, 1]: 1 where all ratios are equal (Kish).

    The sums are over all ranks.
    """
    ratio = log_ratios.exp()
    sums = [weighted_sum(ratio, weight), weighted_sum(ratio.square(), weight), weight.sum()]
    total, squares, whole = ranks.sum(torch.stack(sums))
    fraction: Tensor = total.square() / (whole * squares).clamp(min=1e-12)
    return fraction
