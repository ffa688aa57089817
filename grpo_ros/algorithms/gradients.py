"""Gradient clipping for small networks, where torch's own costs as much as a backward pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.distributed.tensors import is_sharded, local


@torch.no_grad()
def clip_gradients(
    parameters: Sequence[nn.Parameter], maximum_norm: float, ranks: Ranks = ONE_RANK
) -> float:
    """Scale gradients so that their common norm is at most `maximum_norm`; return it before.

    Nothing is scaled where the norm is not finite: the caller leaves that step out. Parameters
    without a gradient are passed over. Gradients are all in shards, on the ranks, or none is.
    """
    found = [p.grad for p in parameters if p.grad is not None]
    gradients = [local(gradient) for gradient in found]
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    norm = float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0
    if found and is_sharded(found[0]):
        norm = math.sqrt(float(ranks.sum(torch.tensor(norm**2, dtype=torch.float64))))
    if maximum_norm < norm < torch.inf:
        for gradient in gradients:
            gradient.mul_(maximum_norm / norm)
    return norm
