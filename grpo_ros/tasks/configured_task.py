"""ConfiguredTask: settings, contract and rewards, as every task of this package has them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import ActionField, Contract, ObservationField
from grpo_ros.robots.robot import Robot, load_robot
from grpo_ros.tasks.base import Outcome, Randomisation
from grpo_ros.tasks.range_scan import RangeScan
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.tasks.shaping import REWARDS, check_rewards, reward_terms


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


class ConfiguredTask(abc.ABC):
    """A task from its settings; what it sees, does and is rewarded for comes from subclasses."""

    Config: type[TaskConfig] = TaskConfig
    config: TaskConfig
    name: str
    instruction: str

    def __init__(self, config: TaskConfig | None = None) -> None:
        self.config = config or self.Config()
        self.robot: Robot = load_robot(self.config.robot)
        self.horizon = self.config.horizon
        self.randomisation = self.config.randomisation
        self.reward_names = check_rewards(self.config.rewards)

    def sensors(self) -> Sequence[RangeScan]:
        """Return none: joints and poses are all that is seen."""
        return ()

    @abc.abstractmethod
    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Return what is observed."""

    @abc.abstractmethod
    def action_fields(self) -> tuple[ActionField, ...]:
        """Return what is commanded."""

    @abc.abstractmethod
    def potential(self, scene: SceneState) -> Tensor:
        """Return (N,), higher is nearer to success; its differences are the reward `progress`."""

    def contract(self) -> Contract:
        """Return what is observed and commanded."""
        return Contract(
            task=self.name,
            instruction=self.instruction,
            embodiment=self.robot.name,
            robot_sha256=self.robot.sha256,
            observation=self.observation_fields(),
            action=self.action_fields(),
            limits=self.robot.limits,
            workspace=dict(self.robot.workspace),
            control_rate_hz=self.config.control_rate_hz,
            chunk_size=self.config.chunk_size,
            num_executed=self.config.chunk_size,
            horizon=self.horizon,
            randomisation=typed.encode(self.randomisation),
        )

    def reward_terms(
        self, before: SceneState, after: SceneState, action: Tensor, outcome: Outcome
    ) -> Mapping[str, Tensor]:
        """Return the configured terms (N,): outcome is sparse, the others are shaping costs."""
        return reward_terms(
            self.reward_names,
            before,
            after,
            action,
            outcome,
            self.potential,
            self.config.control_rate_hz,
        )
