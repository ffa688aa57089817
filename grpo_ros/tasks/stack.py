"""stack: build a tower of two or three cubes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import rotations, typed
from grpo_ros.contract import ObservationField, Source
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.arm_task import TABLE, ArmTask, ArmTaskConfig, pose, turn_to_face, upward
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.pick_script import CUBE_HALF, PickScript, released
from grpo_ros.tasks.scene_state import SceneState

CENTRE = (0.5, 0.0)
SPACING = 0.10
"""Cubes are drawn at least this far apart, so that the open fingers fit between any two, m."""
COLOURS = ((0.15, 0.35, 0.75), (0.85, 0.2, 0.15), (0.95, 0.75, 0.1))
ORDER = ("blue", "red", "yellow")
SUPPORT_TOLERANCE, HEIGHT_TOLERANCE = 0.02, 0.006
"""How far off the axis below a cube may stand, and how far from a cube's height above it, m."""


@dataclasses.dataclass(frozen=True)
class StackConfig(ArmTaskConfig):
    """Settings of the stack task."""

    horizon: int = typed.setting(80, "Control periods per episode", minimum=1, maximum=10_000)
    num_cubes: int = typed.setting(2, "Cubes in the finished tower", minimum=2, maximum=3)
    rest_speed_m_s: float = typed.setting(0.05, "Largest speed of a cube at rest", unit="m/s")
    area_m: tuple[float, float] = typed.setting(
        (0.22, 0.44), "Extent in x and y of where cubes are drawn", unit="m", minimum=0.2
    )


class Stack(ArmTask):
    """Outcome: the cubes stand on each other in order, at rest, released; score: how many do."""

    Config = StackConfig
    config: StackConfig
    name = "stack"

    def __init__(self, config: StackConfig | None = None) -> None:
        super().__init__(config)
        self.cubes = tuple(f"{colour}_cube" for colour in ORDER[: self.config.num_cubes])
        steps = [f"the {ORDER[i]} cube on the {ORDER[i - 1]} one" for i in range(1, self.height)]
        self.instruction = f"Put {', then '.join(steps)}."

    @property
    def height(self) -> int:
        """How many cubes the tower has."""
        return self.config.num_cubes

    def bodies(self) -> Sequence[Body]:
        """Return table and cubes, the lowest first."""
        size = (CUBE_HALF,) * 3
        cubes = [
            Body(name, "box", size, mass=0.08, colour=(*colour, 1.0))
            for name, colour in zip(self.cubes, COLOURS, strict=False)
        ]
        return TABLE, *cubes

    def object_fields(self) -> tuple[ObservationField, ...]:
        """Return, for every cube but the lowest, where it is from the tip, and its place from it.

        That says all there is to know of the tower: which of its levels stand, what comes next.
        """
        fields = []
        for below, cube in zip(self.cubes, self.cubes[1:], strict=False):
            yaw = Source("yaw", (cube,), TIP, 4)
            fields.append(self.position_field(f"{cube}_from_tip", cube, TIP))
            fields.append(ObservationField(f"{cube}_yaw_from_tip", (2,), yaw))
            fields.append(self.position_field(f"{below}_from_{cube}", below, cube))
        return tuple(fields)

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw cubes on the table with room for the fingers between them, and the arm above."""
        num = len(keys)
        poses = {name: torch.empty(num, 7, dtype=torch.float64) for name in self.cubes}
        tip = torch.empty(num, 3, dtype=torch.float64)
        yaw = torch.empty(num, dtype=torch.float64)
        for i, key in enumerate(keys):
            source = generator("stack/initial_state", key)
            for name, place in zip(self.cubes, self._places(source), strict=True):
                poses[name][i] = pose((*place, CUBE_HALF), source.uniform(-0.6, 0.6))
            tip[i] = torch.from_numpy(source.uniform([0.42, -0.12, 0.14], [0.58, 0.12, 0.26]))
            yaw[i] = source.uniform(-0.4, 0.4)
        joints = self.arm_at(tip, yaw, self.gripper.open_position_m)
        still = {name: torch.zeros(num, 6, dtype=torch.float64) for name in self.cubes}
        return SceneState(self.robot.joint_names, joints, torch.zeros_like(joints), poses, still)

    def _places(self, source: np.random.Generator) -> list[NDArray[np.float64]]:
        """Draw until all cubes have room."""
        centre, half = np.array(CENTRE), np.array(self.config.area_m) / 2.0
        while True:
            places = [centre + source.uniform(-half, half) for _ in self.cubes]
            gaps = [
                np.linalg.norm(first - second)
                for i, first in enumerate(places)
                for second in places[:i]
            ]
            if min(gaps) >= SPACING:
                return places

    # ---------------------------------------------------------------- verification

    def levels(self, scene: SceneState) -> Tensor:
        """Return (N, cubes - 1) bool: this cube and all below it stand, at rest, released."""
        tip, opening = self.tip(scene), self.opening(scene)
        stands = torch.ones(scene.num_envs, dtype=torch.bool)
        levels = []
        for below, cube in zip(self.cubes, self.cubes[1:], strict=False):
            offset = scene.position(cube) - scene.position(below)
            across = torch.linalg.vector_norm(offset[:, :2], dim=-1)
            stands = (
                stands
                & (across < SUPPORT_TOLERANCE)
                & ((offset[:, 2] - 2.0 * CUBE_HALF).abs() < HEIGHT_TOLERANCE)
                & (scene.speed(cube) < self.config.rest_speed_m_s)
                & released(scene, cube, tip, opening)
            )
            levels.append(stands)
        return torch.stack(levels, dim=1)

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify the tower; the score is the share of its levels that stand."""
        levels = self.levels(scene)
        lowest = torch.stack([scene.position(name)[:, 2] for name in self.cubes]).amin(dim=0)
        score = levels.sum(dim=1).float() / levels.shape[1]
        return Outcome(levels.all(dim=1), lowest < -0.05, score)

    def potential(self, scene: SceneState) -> Tensor:
        """Return levels minus the next cube's way to its place and half the tip's way to it, m."""
        cube, place = self._next(scene)
        centre = cube[:, :3]
        to_place = place - centre + upward(CUBE_HALF)
        way = torch.linalg.vector_norm(to_place, dim=-1)
        to_cube = torch.linalg.vector_norm(self.tip(scene) - centre, dim=-1)
        # A level is worth more than the way to the farthest next cube takes away again.
        potential: Tensor = self.levels(scene).sum(dim=1) - way - 0.5 * to_cube
        return potential

    # ---------------------------------------------------------------- demonstrator

    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the picking script's action for the lowest cube that does not stand yet."""
        cube, place = self._next(scene)
        rise = 2.0 * CUBE_HALF * (self.height - 2)
        script = PickScript(self.config.step_m, 0.4 * SUPPORT_TOLERANCE, rise)
        yaw = rotations.yaw_of_quaternion(cube[:, 3:])
        turn = turn_to_face(yaw, controller_state["yaw"][:, 0]) / self.config.step_rad
        tip, opening = self.tip(scene), self.opening(scene)
        return script.action(cube[:, :3], place, turn, tip, opening, controller_state)

    def _next(self, scene: SceneState) -> tuple[Tensor, Tensor]:
        """Return the pose (N, 7) of the lowest cube that does not stand, and its place (N, 3)."""
        standing = self.levels(scene).sum(dim=1)
        index = standing.clamp(max=self.height - 2)
        row = torch.arange(scene.num_envs)
        poses = torch.stack([scene.poses[name] for name in self.cubes], dim=1)
        cube, below = poses[row, index + 1], poses[row, index]
        return cube, below[:, :3] + upward(CUBE_HALF)
