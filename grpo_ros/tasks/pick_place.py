"""pick_place: grasp a cube and set it down on a goal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import ObservationField, Source
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.arm_task import TABLE, draw_place, draw_tip, pose
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.cube_task import CubeTask, CubeTaskConfig
from grpo_ros.tasks.pick_script import CUBE_HALF, PickScript
from grpo_ros.tasks.scene_state import SceneState


@dataclasses.dataclass(frozen=True)
class PickPlaceConfig(CubeTaskConfig):
    """Settings of the pick_place task."""

    goal_radius_m: float = typed.setting(
        0.025, "Largest distance to the goal", unit="m", minimum=1e-3
    )


class PickPlace(CubeTask):
    """Outcome: the cube lies within 25 mm of the goal, at rest, released."""

    Config = PickPlaceConfig
    config: PickPlaceConfig
    name = "pick_place"
    instruction = "Pick up the cube and place it on the green marker."

    def bodies(self) -> Sequence[Body]:
        """Return table, cube and goal marker."""
        return (
            TABLE,
            Body("cube", "box", (CUBE_HALF,) * 3, mass=0.08, colour=(0.85, 0.2, 0.15, 1.0)),
            Body(
                "goal",
                "cylinder",
                (self.config.goal_radius_m, 0.001),
                motion="kinematic",
                visual_only=True,
                colour=(0.1, 0.7, 0.25, 0.8),
            ),
        )

    def object_fields(self) -> tuple[ObservationField, ...]:
        """Return the cube from the tip, and the goal from the cube.

        Positions are relative, so that what is learned in one place holds in the next.
        """
        return (
            self.position_field("cube_from_tip", "cube", TIP),
            ObservationField("cube_yaw_from_tip", (2,), Source("yaw", ("cube",), TIP, 4)),
            self.position_field("goal_from_cube", "goal", "cube"),
        )

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw cube and goal at least 12 cm apart on the table and the arm above them."""
        cube, goal, tip, yaw = (
            torch.empty(len(keys), n, dtype=torch.float64) for n in (7, 7, 3, 1)
        )
        area = self.config.area_m
        for i, key in enumerate(keys):
            source = generator("pick_place/initial_state", key)
            cube_xy, cube_yaw = draw_place(source, area), source.uniform(-0.6, 0.6)
            goal_xy = draw_place(source, area)
            while np.linalg.norm(goal_xy - cube_xy) < 0.12:
                goal_xy = draw_place(source, area)
            cube[i] = pose((*cube_xy, CUBE_HALF), cube_yaw)
            goal[i] = pose((*goal_xy, 0.0))
            position, yaw[i] = draw_tip(source, 0.14, 0.26)
            tip[i] = torch.from_numpy(position)
        poses = {"cube": cube, "goal": goal}
        return self.start(tip, yaw[:, 0], self.gripper.open_position_m, poses)

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify that the cube is on the goal, at rest and released."""
        offset = scene.position("cube") - scene.position("goal")
        distance = torch.linalg.vector_norm(offset[:, :2], dim=-1)
        height = scene.position("cube")[:, 2]
        success = (
            (distance < self.config.goal_radius_m)
            & (height < CUBE_HALF + 0.01)
            & self.is_at_rest(scene, "cube")
            & self.is_open(scene)
        )
        near = torch.clamp(1.0 - distance / 0.5, 0.0, 1.0)
        score = torch.where(success, 1.0, 0.9 * near).float()
        return Outcome(success, height < -0.05, score)

    def potential(self, scene: SceneState) -> Tensor:
        """Return minus the cube's way to the goal and half the tip's way to the cube, m."""
        return -self.ways(scene, scene.position("cube"), scene.position("goal"))

    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the picking script's action."""
        script = PickScript(self.config.step_m, self.config.goal_radius_m)
        cube, goal = scene.poses["cube"], scene.position("goal")
        return self.carry(scene, controller_state, cube, goal, script)
