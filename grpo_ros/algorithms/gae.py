"""Generalised advantage estimation over chunks; terminated and truncated are told apart."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import ONE_RANK, Ranks

STD_EPSILON = 1e-8
ROUNDING = 1e-12
"""Share of a mean square that float32 leaves of what should be none."""


def chunk_rewards(rewards: Tensor, executed: Tensor, discount: float) -> tuple[Tensor, Tensor]:
    """Return what each decision earns, and the discount of what follows it, both (N, T).

    A decision of n executed steps is one transition of a semi-Markov process:
    r_t = sum_{k<n} gamma^k r_{t,k}, followed by gamma^n (Sutton et al., "Between MDPs and
    semi-MDPs", Artificial Intelligence 1999). With chunks of one step that is the usual r, gamma.

    Args:
        rewards: (N, T, K) of each step.
        executed: (N, T, K) bool, a prefix of each chunk.
        discount: gamma, of one control step.
    """
    powers = discount ** torch.arange(rewards.shape[-1], dtype=rewards.dtype)
    earned = (torch.where(executed, rewards, 0.0) * powers).sum(dim=-1)
    return earned, discount ** executed.sum(dim=-1).to(rewards.dtype)


def generalised_advantages(
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    ended: Tensor,
    trace_decay: float,
) -> Tensor:
    """Return A_t of every decision, (N, T).

    GAE (1506.02438), with d_t the discount over decision t:

        delta_t = r_t + d_t (1 - terminated_t) V(s_{t+1}) - V(s_t)
        A_t     = delta_t + d_t lambda (1 - ended_t) A_{t+1}

    An episode that the time limit cut still has a future, so its last state's value counts; one
    that terminated has none.

    Args:
        rewards, discounts: (N, T), as `chunk_rewards` gives them.
        values: (N, T) V of what each decision saw.
        next_values: (N, T) V of what followed, before any reset.
        terminated: (N, T) bool, the decision ended the task.
        ended: (N, T) bool, the episode ended with it, in either way.
        trace_decay: lambda.
    """
    delta = rewards + discounts * torch.where(terminated, 0.0, next_values) - values
    advantages = torch.empty_like(delta)
    following = torch.zeros_like(delta[:, 0])
    for t in reversed(range(delta.shape[1])):
        kept = torch.where(ended[:, t], 0.0, following)
        following = delta[:, t] + discounts[:, t] * trace_decay * kept
        advantages[:, t] = following
    return advantages


def normalise_advantages(advantages: Tensor, valid: Tensor, ranks: Ranks = ONE_RANK) -> Tensor:
    """Return (A - mean) / (std + epsilon) over all valid decisions, 0 elsewhere; same shape.

    Mean and standard deviation are those of all ranks' decisions.
    """
    chosen = ranks.gather(advantages[valid])
    if len(chosen) < 2:
        return torch.zeros_like(advantages)
    scaled = (advantages - chosen.mean()) / (chosen.std() + STD_EPSILON)
    return torch.where(valid, scaled, 0.0)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """Return 1 - Var[R - V] / Var[R] of two flat tensors: 1 perfect, 0 as good as a constant.

    0 where returns differ by no more than rounding, so that there is nothing to explain.
    """
    if not len(returns):
        return 0.0
    spread = float(returns.var(correction=0))
    rounding = ROUNDING * float((returns.square() + values.square()).mean())
    if spread <= rounding:
        return 0.0
    return 1.0 - float((returns - values).var(correction=0)) / spread
