"""pick_place: grasp a cube and set it down on a goal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from grpo_ros import rotations, typed
from grpo_ros.contract import ObservationField, Source
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.arm_task import TABLE, ArmTask, ArmTaskConfig, pose, turn_to_face
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.pick_script import CUBE_HALF, PickScript
from grpo_ros.tasks.scene_state import SceneState

CENTRE = (0.5, 0.0)
"""Of the area where cube and goal are drawn, m."""


@dataclasses.dataclass(frozen=True)
class PickPlaceConfig(ArmTaskConfig):
    """Settings of the pick_place task."""

    goal_radius_m: float = typed.setting(
        0.025, "Largest distance to the goal", unit="m", minimum=1e-3
    )
    rest_speed_m_s: float = typed.setting(0.05, "Largest speed of a cube at rest", unit="m/s")
    area_m: tuple[float, float] = typed.setting(
        (0.22, 0.44), "Extent in x and y of where cube and goal are drawn", unit="m", minimum=0.14
    )


class PickPlace(ArmTask):
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
        centre, half = np.array(CENTRE), np.array(self.config.area_m) / 2.0
        for i, key in enumerate(keys):
            source = generator("pick_place/initial_state", key)
            cube_xy = centre + source.uniform(-half, half)
            cube_yaw = source.uniform(-0.6, 0.6)
            goal_xy = centre + source.uniform(-half, half)
            while np.linalg.norm(goal_xy - cube_xy) < 0.12:
                goal_xy = centre + source.uniform(-half, half)
            cube[i] = pose((*cube_xy, CUBE_HALF), cube_yaw)
            goal[i] = pose((*goal_xy, 0.0))
            tip[i] = torch.from_numpy(source.uniform([0.42, -0.12, 0.14], [0.58, 0.12, 0.26]))
            yaw[i] = source.uniform(-0.4, 0.4)
        joints = self.arm_at(tip, yaw[:, 0], self.gripper.open_position_m)
        return SceneState(
            self.robot.joint_names,
            joints,
            torch.zeros_like(joints),
            {"cube": cube, "goal": goal},
            {"cube": torch.zeros(len(keys), 6, dtype=torch.float64)},
        )

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify that the cube is on the goal, at rest and released."""
        offset = scene.position("cube") - scene.position("goal")
        distance = torch.linalg.vector_norm(offset[:, :2], dim=-1)
        height = scene.position("cube")[:, 2]
        success = (
            (distance < self.config.goal_radius_m)
            & (height < CUBE_HALF + 0.01)
            & (scene.speed("cube") < self.config.rest_speed_m_s)
            & (self.opening(scene) > CUBE_HALF + 0.005)
        )
        near = torch.clamp(1.0 - distance / 0.5, 0.0, 1.0)
        score = torch.where(success, 1.0, 0.9 * near).float()
        return Outcome(success, height < -0.05, score)

    def potential(self, scene: SceneState) -> Tensor:
        """Return minus the cube's way to the goal and half the tip's way to the cube, m."""
        cube = scene.position("cube")
        to_goal = torch.linalg.vector_norm(cube - scene.position("goal"), dim=-1)
        to_cube = torch.linalg.vector_norm(self.tip(scene) - cube, dim=-1)
        potential: Tensor = -(to_goal + 0.5 * to_cube)
        return potential

    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the picking script's action."""
        script = PickScript(self.config.step_m, self.config.goal_radius_m)
        yaw = rotations.yaw_of_quaternion(scene.quaternion("cube"))
        turn = turn_to_face(yaw, controller_state["yaw"][:, 0]) / self.config.step_rad
        return script.action(
            scene.position("cube"),
            scene.position("goal"),
            turn,
            self.tip(scene),
            self.opening(scene),
            controller_state,
        )
