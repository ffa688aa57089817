"""StartConfig: the settings of where groups start."""

from __future__ import annotations

import dataclasses
from typing import Literal

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class StartConfig:
    """Where groups start. Every step counts, wherever it is taken."""

    selection: Literal["uniform", "learned"] = typed.setting(
        "uniform",
        "Initial states as the task draws them, or by a learned p (1 - p) of their success",
    )
    candidates: int = typed.setting(
        8, "learned: initial states drawn for each one that is chosen", minimum=2
    )
    branch_fraction: float = typed.setting(
        0.0, "Share of groups that branch off the last rollouts", minimum=0.0, maximum=1.0
    )
    branch_at: Literal["uniform", "divergence"] = typed.setting(
        "uniform",
        "At any decision, or where failures of mixed groups lost most of their predicted success",
    )
    curriculum_fraction: float = typed.setting(
        0.0,
        "Share of groups that start along demonstrations: near the end first, then further back",
        minimum=0.0,
        maximum=1.0,
    )
    curriculum_demonstrations: int = typed.setting(
        20, "Demonstrations whose states are kept for it", minimum=1
    )
    curriculum_step: float = typed.setting(
        0.1, "Share of a demonstration by which the start moves back", minimum=0.01, maximum=1.0
    )
    curriculum_success: float = typed.setting(
        0.7, "Success of an iteration's starts from which it moves", minimum=0.0, maximum=1.0
    )

    def __post_init__(self) -> None:
        if self.branch_fraction + self.curriculum_fraction > 1.0:
            raise ConfigurationError(
                f"'branch_fraction' = {self.branch_fraction} and "
                f"'curriculum_fraction' = {self.curriculum_fraction}",
                expected="at most 1 together: the rest starts as episodes do",
            )

    @property
    def is_plain(self) -> bool:
        """Whether every group starts as an episode does, at the task's own initial states."""
        return not (
            self.branch_fraction or self.curriculum_fraction or self.selection == "learned"
        )

    @property
    def needs_prediction(self) -> bool:
        """Whether success must be predicted."""
        is_diverging = self.branch_fraction > 0.0 and self.branch_at == "divergence"
        return self.selection == "learned" or is_diverging
