"""CubeTask: what tasks that carry cubes from place to place have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros import rotations, typed
from grpo_ros.tasks.arm_task import ArmTask, ArmTaskConfig, turn_to_face
from grpo_ros.tasks.pick_script import CUBE_HALF, PickScript
from grpo_ros.tasks.scene_state import SceneState


@dataclasses.dataclass(frozen=True)
class CubeTaskConfig(ArmTaskConfig):
    """Settings that tasks with cubes share."""

    rest_speed_m_s: float = typed.setting(0.05, "Largest speed of a cube at rest", unit="m/s")
    area_m: tuple[float, float] = typed.setting(
        (0.22, 0.44), "Extent in x and y of where things are drawn", unit="m", minimum=0.2
    )


class CubeTask(ArmTask):
    """Adds when a cube is put down, and the script that carries one."""

    Config: type[CubeTaskConfig] = CubeTaskConfig
    config: CubeTaskConfig
    handles_objects = True

    def is_open(self, scene: SceneState) -> Tensor:
        """Return (N,) bool: the fingers do not hold a cube that is between them."""
        is_open: Tensor = self.opening(scene) > CUBE_HALF + 0.005
        return is_open

    def is_at_rest(self, scene: SceneState, cube: str) -> Tensor:
        """Return (N,) bool: a cube is slower than `rest_speed_m_s`."""
        return scene.speed(cube) < self.config.rest_speed_m_s

    def ways(self, scene: SceneState, cube: Tensor, place: Tensor) -> Tensor:
        """Return the cube's way (N,) to its place and half the tip's way to the cube, m."""
        to_place = torch.linalg.vector_norm(cube - place, dim=-1)
        to_cube = torch.linalg.vector_norm(self.tip(scene) - cube, dim=-1)
        ways: Tensor = to_place + 0.5 * to_cube
        return ways

    def carry(
        self,
        scene: SceneState,
        controller_state: Mapping[str, Tensor],
        cube: Tensor,
        place: Tensor,
        script: PickScript,
    ) -> Tensor:
        """Return the script's action (N, 5) for a cube (N, 7) that belongs on a place (N, 3)."""
        yaw = rotations.yaw_of_quaternion(cube[:, 3:])
        turn = turn_to_face(yaw, controller_state["yaw"][:, 0]) / self.config.step_rad
        tip, opening = self.tip(scene), self.opening(scene)
        return script.action(cube[:, :3], place, turn, tip, opening, controller_state)
