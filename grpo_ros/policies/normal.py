"""Diagonal normal distributions: log-likelihood, entropy and divergence in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2.0 * math.pi)


def normal_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return log N(value; mean, std^2) summed over the last dimension.

    log p = sum_a [ -((x_a - mean_a) / std_a)^2 / 2 - log std_a - log(2 pi) / 2 ]

    Args:
        value: (..., A). mean: (..., A). std: broadcastable to (..., A), positive.

    Returns:
        (...), in nats.
    """
    standard = (value - mean) / std
    return (-0.5 * standard.square() - torch.log(std) - 0.5 * LOG_2PI).sum(dim=-1)


def normal_entropy(std: Tensor) -> Tensor:
    """Return the entropy sum_a [log std_a + (1 + log 2 pi) / 2] over the last dimension (nats)."""
    return (torch.log(std) + 0.5 * (1.0 + LOG_2PI)).sum(dim=-1)


def normal_kl(mean_p: Tensor, std_p: Tensor, mean_q: Tensor, std_q: Tensor) -> Tensor:
    """Return KL(p || q) of diagonal normals, summed over the last dimension (nats).

    KL = sum_a [ log(std_q / std_p) + (std_p^2 + (mean_p - mean_q)^2) / (2 std_q^2) - 1/2 ];
    with equal std this is |mean_p - mean_q|^2 / (2 std^2), the flow transition of Flow-GRPO
    (2505.05470).

    Args:
        mean_p, mean_q: (..., A). std_p, std_q: broadcastable to (..., A), positive.
    """
    ratio = std_p / std_q
    shift = (mean_p - mean_q) / std_q
    return (0.5 * (ratio.square() + shift.square() - 1.0) - torch.log(ratio)).sum(dim=-1)
