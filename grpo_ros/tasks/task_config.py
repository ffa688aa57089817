"""TaskConfig: the settings that every task of this package has."""

from __future__ import annotations

import dataclasses

from grpo_ros import typed
from grpo_ros.tasks.base import Randomisation
from grpo_ros.tasks.shaping import REWARDS


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Settings that tasks share; each gives its own defaults."""

    robot: str = typed.setting("franka_fr3", "Name or folder of the robot description")
    horizon: int = typed.setting(50, "Control periods per episode", minimum=1, maximum=10_000)
    chunk_size: int = typed.setting(4, "Actions per decision", minimum=1, maximum=64)
    control_rate_hz: float = typed.setting(20.0, "Rate of actions", unit="Hz", minimum=1.0)
    rewards: tuple[str, ...] = typed.setting(
        ("outcome",), f"Reward terms, of {', '.join(REWARDS)}"
    )
    randomisation: Randomisation = typed.setting(
        factory=Randomisation, description="What is drawn per episode"
    )
