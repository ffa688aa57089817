"""The Physics protocol: what an engine adapter is, and nothing else of a simulator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from grpo_ros.errors import SimulatorError
from grpo_ros.robots.robot import Gripper
from grpo_ros.simulators.base import Capabilities
from grpo_ros.tasks.scene_state import SceneState


class Physics(Protocol):
    """Moves the bodies of up to N environments; a function of the state that it is given.

    A physics row (S,) holds all that an engine's next step depends on, so that an engine keeps
    nothing between calls that could decide a result.

    Attributes:
        engine: name and version, robot and task, hash of what decides the model: what a snapshot
            can be restored by.
        num_envs: N. num_substeps: physics steps in a control period.
        state_size: S.
        capabilities: what is guaranteed.
    """

    engine: str
    num_envs: int
    num_substeps: int
    state_size: int
    capabilities: Capabilities

    def empty(self) -> Tensor:
        """Return N physics rows (N, S), of any content, in the engine's precision."""

    def start(self, initial: SceneState) -> Tensor:
        """Return the physics rows (n, S) of scenes at rest.

        Args:
            initial: the commanded joints' positions and the dynamic bodies' poses.
        """

    def scene(self, physics: Tensor) -> SceneState:
        """Return joints and dynamic bodies of physics rows (n, S), in float64."""

    def full_scene(self, physics: Tensor) -> SceneState:
        """Return `scene` with the joints that nobody commands, since they mimic another."""

    def with_scene(self, physics: Tensor, scene: SceneState) -> Tensor:
        """Return physics rows (n, S) with the state that a scene gives; the rest stays.

        Args:
            physics: (n, S), not written to.
            scene: joints, and poses and velocities of dynamic bodies; those that it does not name
                stay as they are. A joint that mimics another follows it, unless it is named.
        """

    def simulate(
        self, ids: Tensor, physics: Tensor, control: Tensor, placed: Tensor
    ) -> Callable[[], Tensor]:
        """Begin to move environments `ids` along joint targets.

        Args:
            ids: (n,) environments, each at most once, ascending.
            physics: (n, S) what they start from.
            control: (n, substeps, J) position targets of the commanded joints.
            placed: (n, B, 7) poses of bodies that physics does not move.

        Returns:
            what waits for the end and returns the new physics rows (n, S).
        """

    def set_draws(self, ids: Tensor, draws: Tensor) -> None:
        """Let environments differ by factors on masses, friction and gains (n, 5); see `Rows`."""

    def render(self, ids: Tensor, physics: Tensor, placed: Tensor, camera: str) -> Tensor:
        """Return images (n, H, W, 3) uint8 of physics rows."""

    def close(self) -> None:
        """Release what the engine holds; idempotent."""


def joint_sources(scene: SceneState, gripper: Gripper | None) -> dict[str, int]:
    """Return joint -> column of the scene that gives its state.

    A joint that mimics the gripper's driver and is not named itself has the driver's column.
    """
    sources = {name: column for column, name in enumerate(scene.joint_names)}
    if gripper is not None and gripper.joint in sources:
        for name in gripper.mimic_joints:
            sources.setdefault(name, sources[gripper.joint])
    return sources


def short_hash(*parts: object) -> str:
    """Return eight digits that stand for what decides a model: bodies, time step, settings."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def whole_substeps(period_s: float, timestep_s: float) -> int:
    """Return how many time steps make a control period.

    Raises:
        SimulatorError: not a whole number.
    """
    ratio = period_s / timestep_s
    if abs(ratio - round(ratio)) > 1e-6 or round(ratio) < 1:
        raise SimulatorError(
            f"control period {period_s} s at a time step of {timestep_s} s",
            expected="a whole number of steps per period",
        )
    return round(ratio)
