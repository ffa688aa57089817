"""What is rewarded: outcome, score or reward terms, as every algorithm reads them of a rollout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.training.rollout import Rollout

VERIFIED = ("outcome", "score")
"""Objectives that every episode has, whatever its task rewards."""


def check_objectives(names: Sequence[str], reward_names: Sequence[str]) -> None:
    """Raise ConfigurationError for a name that is neither verified nor a reward term."""
    known = dict.fromkeys((*VERIFIED, *reward_names))
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"objective '{name}'",
                expected="outcome, score or a reward term of the task (its setting `rewards`)",
                remedy=nearest(name, known),
            )


def objective_steps(rollout: Rollout, name: str) -> Tensor:
    """Return what each step earns of an objective, (N, T, K); 0 where not executed.

    Outcome and score are earned with the last step that was executed.

    Raises:
        ConfigurationError: the rollout has no such reward term.
    """
    executed = rollout.executed
    if name in VERIFIED:
        value = rollout.outcome if name == "outcome" else rollout.score
        flat = executed.flatten(1)
        place = torch.arange(flat.shape[1], device=flat.device)
        last = torch.where(flat, place, -1).amax(dim=1, keepdim=True)
        steps = torch.where(place == last, value.unsqueeze(1), 0.0)
        return steps.view(executed.shape)
    check_objectives((name,), rollout.reward_names)
    term = rollout.reward_terms[..., rollout.reward_names.index(name)]
    return torch.where(executed, term, 0.0)


def objective_value(rollout: Rollout, name: str) -> Tensor:
    """Return what each episode earns of an objective, (N,)."""
    if name in VERIFIED:
        return rollout.outcome if name == "outcome" else rollout.score
    return objective_steps(rollout, name).flatten(1).sum(dim=1)


def weighted_steps(rollout: Rollout, names: Sequence[str], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of several objectives at each step, (N, T, K)."""
    parts = [
        weight * objective_steps(rollout, name)
        for name, weight in zip(names, weights, strict=True)
    ]
    return torch.stack(parts).sum(dim=0)
