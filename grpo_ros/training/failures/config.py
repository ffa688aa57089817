"""FailureConfig: the settings of what is kept of failures."""

from __future__ import annotations

import dataclasses

from grpo_ros import typed


@dataclasses.dataclass(frozen=True)
class FailureConfig:
    """What is kept of rollouts that failed."""

    keep_mb: float = typed.setting(
        200.0, "Failed rollouts kept of a run, the newest ones; 0: none", unit="MB", minimum=0.0
    )
