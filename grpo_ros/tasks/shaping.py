"""Reward terms that tasks share: the sparse outcome, shaped progress and two costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.tasks.base import Outcome
from grpo_ros.tasks.scene_state import SceneState

REWARDS = ("outcome", "progress", "energy", "smoothness")
"""outcome: 1 when it is verified. progress: how much the task's potential rose. energy: minus the
integral of squared joint velocities. smoothness: minus the squared action."""


def check_rewards(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names; raise ConfigurationError for one that is no reward term."""
    for name in names:
        if name not in REWARDS:
            raise ConfigurationError(f"task.rewards has '{name}'", remedy=nearest(name, REWARDS))
    return tuple(names)


def reward_terms(
    names: Sequence[str],
    before: SceneState,
    after: SceneState,
    action: Tensor,
    outcome: Outcome,
    potential: Callable[[SceneState], Tensor],
    control_rate_hz: float,
) -> Mapping[str, Tensor]:
    """Return the named terms (N,) of one control step.

    Args:
        names: which terms.
        before, after: the step. action: (N, A), as executed.
        outcome: of `after`.
        potential: scene -> (N,), higher is nearer to success. Its undiscounted differences add up
            to what an episode gains of it, which stays at the end: unlike in Ng et al. ("Policy
            invariance under reward transformations", ICML 1999) that may change what is optimal.
        control_rate_hz: of the step.
    """
    terms: dict[str, Tensor] = {}
    for name in names:
        match name:
            case "outcome":
                terms[name] = outcome.success.float()
            case "progress":
                terms[name] = potential(after) - potential(before)
            case "energy":
                terms[name] = -after.joint_velocity.square().sum(-1) / control_rate_hz
            case "smoothness":
                terms[name] = -action.square().sum(-1)
    return terms
