"""The Task protocol: initial states, verified outcome, score, rewards, demonstrator."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.randomness import Key
from grpo_ros.robots.robot import Robot
from grpo_ros.tasks.scene_state import SceneState

if TYPE_CHECKING:
    from grpo_ros.tasks.camera import Camera
    from grpo_ros.tasks.range_scan import RangeScan


NUM_SIZES = {"box": 3, "cylinder": 2, "sphere": 1}
"""Shape of a body -> numbers that say how large it is."""
MOTIONS = ("dynamic", "kinematic", "static")


@dataclasses.dataclass(frozen=True)
class Body:
    """One primitive of a scene, engine-neutral.

    Attributes:
        name: name of the body, also in SceneState.poses.
        shape: box (half extents x, y, z), cylinder (radius, half height) or sphere (radius).
        size: metres, as the shape says.
        position: initial position in the robot's base frame, m.
        mass: kg; of dynamic bodies.
        friction: sliding friction coefficient.
        motion: dynamic, physics moves it; kinematic, it stands where an episode's initial state
            puts it; static, it is part of the world.
        visual_only: seen, never touched (a goal marker).
        colour: red, green, blue, alpha in [0, 1].
    """

    name: str
    shape: Literal["box", "cylinder", "sphere"]
    size: tuple[float, ...]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mass: float = 0.1
    friction: float = 1.0
    motion: Literal["dynamic", "kinematic", "static"] = "dynamic"
    visual_only: bool = False
    colour: tuple[float, float, float, float] = (0.6, 0.6, 0.6, 1.0)

    def __post_init__(self) -> None:
        for key, known in (("shape", NUM_SIZES), ("motion", MOTIONS)):
            value = getattr(self, key)
            if value not in known:
                raise ConfigurationError(
                    f"body '{self.name}' has {key} '{value}'",
                    expected=" | ".join(known),
                    remedy=nearest(str(value), known),
                )
        if len(self.size) != NUM_SIZES[self.shape]:
            raise ConfigurationError(
                f"body '{self.name}', a {self.shape}, has {len(self.size)} sizes",
                expected=f"{NUM_SIZES[self.shape]}",
            )


@dataclasses.dataclass(frozen=True)
class Randomisation:
    """What is drawn per episode; constant within a group. Each pair is a uniform range."""

    enabled: bool = typed.setting(False, "Whether anything is randomised")
    mass: tuple[float, float] = typed.setting((0.7, 1.4), "Factor on object masses")
    friction: tuple[float, float] = typed.setting((0.7, 1.3), "Factor on friction coefficients")
    gains: tuple[float, float] = typed.setting((0.8, 1.2), "Factor on servo stiffness and damping")
    observation_noise: float = typed.setting(
        0.003, "Standard deviation of noise on object poses", unit="m", minimum=0.0
    )
    action_delay: tuple[int, int] = typed.setting(
        (0, 2), "Periods between action and effect, drawn inclusive", unit="periods", minimum=0
    )

    def __post_init__(self) -> None:
        for name in ("mass", "friction", "gains"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high < math.inf:
                raise ConfigurationError(
                    f"'{name}' = [{low}, {high}]", expected="[low, high] with 0 < low <= high"
                )
        low, high = self.action_delay
        if not 0 <= low <= high:
            raise ConfigurationError(
                f"'action_delay' = [{low}, {high}]", expected="[low, high] with 0 <= low <= high"
            )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is verified about N scenes.

    Attributes:
        success: (N,) bool, the outcome holds.
        failure: (N,) bool, it can no longer hold (ends the episode).
        score: (N,) float32 in [0, 1], partial credit.
    """

    success: Tensor
    failure: Tensor
    score: Tensor


class Task(Protocol):
    """A task whose outcome can be verified, on SceneState and in torch alone.

    Its class also has `Config`, a frozen dataclass of settings, and takes one or None.
    """

    name: str
    instruction: str
    horizon: int
    robot: Robot
    randomisation: Randomisation
    reward_names: tuple[str, ...]

    def bodies(self) -> Sequence[Body]:
        """Return the primitives that the scene consists of, beside the robot."""

    def sensors(self) -> Sequence[RangeScan]:
        """Return what senses the scene beside joints and poses; simulators give its readings."""

    def cameras(self) -> Sequence[Camera]:
        """Return the cameras whose images are observed."""

    def contract(self) -> Contract:
        """Return what a policy of this task observes and commands."""

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw one initial state per key; a state depends on its own key alone."""

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify the outcome in each scene."""

    def reward_terms(
        self, before: SceneState, after: SceneState, action: Tensor, outcome: Outcome
    ) -> Mapping[str, Tensor]:
        """Return the separate reward terms (N,) of one control step, by `reward_names`."""

    def demonstrate(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the scripted demonstrator's action (N, A) in [-1, 1]; a function of the scene."""
