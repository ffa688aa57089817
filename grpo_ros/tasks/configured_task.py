"""ConfiguredTask: settings, contract and rewards, as every task of this package has them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import ActionField, Contract, ObservationField, Source
from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.robots.robot import Robot, load_robot, placed
from grpo_ros.tasks.base import Body, Outcome, Randomisation
from grpo_ros.tasks.camera import Camera, overview
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
    cameras: tuple[str, ...] = typed.setting(
        (), "Cameras whose images are observed: overview; of an arm's tasks, top as well"
    )
    image_size: tuple[int, int] = typed.setting(
        (96, 96), "Width and height of observed images", unit="pixels", minimum=8
    )
    randomisation: Randomisation = typed.setting(
        factory=Randomisation, description="What is drawn per episode"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "robot", placed(self.robot))


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

    def views(self) -> Sequence[Camera]:
        """Return the cameras that there are; `config.cameras` chooses among them."""
        return (overview(self.bodies()),)

    def cameras(self) -> Sequence[Camera]:
        """Return the cameras whose images are observed, in the configured order and size.

        Raises:
            ConfigurationError: there is no camera of that name.
        """
        known = {view.name: view for view in self.views()}
        for name in self.config.cameras:
            if name not in known:
                raise ConfigurationError(
                    f"'{self.name}.cameras' names '{name}'", remedy=nearest(name, known)
                )
        width, height = self.config.image_size
        return tuple(
            dataclasses.replace(known[name], width=width, height=height)
            for name in self.config.cameras
        )

    @abc.abstractmethod
    def bodies(self) -> Sequence[Body]:
        """Return the primitives that the scene consists of, beside the robot."""

    @abc.abstractmethod
    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Return what is observed."""

    @abc.abstractmethod
    def action_fields(self) -> tuple[ActionField, ...]:
        """Return what is commanded."""

    @abc.abstractmethod
    def potential(self, scene: SceneState) -> Tensor:
        """Return (N,), higher is nearer to success; its differences are the reward `progress`."""

    @property
    def motion(self) -> Literal["linear", "smooth"]:
        """How targets are joined in training."""
        return "linear"

    def contract(self) -> Contract:
        """Return what is observed and commanded."""
        return Contract(
            task=self.name,
            instruction=self.instruction,
            embodiment=self.robot.name,
            robot_sha256=self.robot.sha256,
            observation=(*self.observation_fields(), *map(image_field, self.cameras())),
            action=self.action_fields(),
            limits=self.robot.limits,
            workspace=dict(self.robot.workspace),
            control_rate_hz=self.config.control_rate_hz,
            chunk_size=self.config.chunk_size,
            num_executed=self.config.chunk_size,
            horizon=self.horizon,
            motion=self.motion,
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


def image_field(camera: Camera) -> ObservationField:
    """Return the observation of a camera's image: (height, width, 3) uint8, RGB."""
    shape = (camera.height, camera.width, 3)
    source = Source("camera", (camera.name,), encoding="rgb8")
    return ObservationField(f"{camera.name}_image", shape, source, "uint8")
