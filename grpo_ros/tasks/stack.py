"""stack: build a tower of two or three cubes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import ObservationField, Source
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.arm_task import TABLE, draw_place, draw_tip, pose, upward
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.cube_task import CubeTask, CubeTaskConfig
from grpo_ros.tasks.pick_script import CUBE_HALF, PickScript
from grpo_ros.tasks.scene_state import SceneState

SPACING = 0.10
"""Cubes are drawn at least this far apart, so that the open fingers fit between any two, m."""
COLOURS = ((0.15, 0.35, 0.75), (0.85, 0.2, 0.15), (0.95, 0.75, 0.1))
ORDER = ("blue", "red", "yellow")
SUPPORT_TOLERANCE, HEIGHT_TOLERANCE = 0.02, 0.006
"""How far off the axis below a cube may stand, and how far from a cube's height above it, m."""

AWAY = 0.035
"""Closed fingers farther than this from a cube's centre do not hold it, m."""


@dataclasses.dataclass(frozen=True)
class StackConfig(CubeTaskConfig):
    """Settings of the stack task."""

    horizon: int = typed.setting(80, "Control periods per episode", minimum=1, maximum=10_000)
    num_cubes: int = typed.setting(2, "Cubes in the finished tower", minimum=2, maximum=3)


class Stack(CubeTask):
    """Outcome: the cubes stand on each other in order, at rest, released; score: how many do."""

    Config = StackConfig
    config: StackConfig
    name = "stack"

    def __init__(self, config: StackConfig | None = None) -> None:
        super().__init__(config)
        order = ORDER[: self.config.num_cubes]
        self.cubes = tuple(f"{colour}_cube" for colour in order)
        steps = [f"the {top} cube on the {below} one" for below, top in itertools.pairwise(order)]
        self.instruction = f"Put {', then '.join(steps)}."

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
        for below, cube in itertools.pairwise(self.cubes):
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
            position, yaw[i] = draw_tip(source, 0.14, 0.26)
            tip[i] = torch.from_numpy(position)
        return self.start(tip, yaw, self.gripper.open_position_m, poses)

    def _places(self, source: np.random.Generator) -> list[NDArray[np.float64]]:
        """Draw until all cubes have room."""
        while True:
            places = [draw_place(source, self.config.area_m) for _ in self.cubes]
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
        tip, is_open = self.tip(scene), self.is_open(scene)
        lowest = scene.position(self.cubes[0])
        to_lowest = torch.linalg.vector_norm(lowest - tip, dim=-1)
        stands = (
            ((lowest[:, 2] - CUBE_HALF).abs() < HEIGHT_TOLERANCE)  # on the table, not held
            & self.is_at_rest(scene, self.cubes[0])
            & (is_open | (to_lowest > AWAY))
        )
        levels = []
        for below, cube in itertools.pairwise(self.cubes):
            offset = scene.position(cube) - scene.position(below)
            across = torch.linalg.vector_norm(offset[:, :2], dim=-1)
            to_cube = torch.linalg.vector_norm(scene.position(cube) - tip, dim=-1)
            stands = (
                stands
                & (across < SUPPORT_TOLERANCE)
                & ((offset[:, 2] - 2.0 * CUBE_HALF).abs() < HEIGHT_TOLERANCE)
                & self.is_at_rest(scene, cube)
                & (is_open | (to_cube > AWAY))
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
        standing, cube, place = self._next(scene)
        # A level is worth more than the way to the farthest next cube takes away again.
        potential: Tensor = standing - self.ways(scene, cube[:, :3], place + upward(CUBE_HALF))
        return potential

    # ---------------------------------------------------------------- demonstrator

    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the picking script's action for the lowest cube that does not stand yet."""
        _, cube, place = self._next(scene)
        rise = 2.0 * CUBE_HALF * (len(self.cubes) - 2)
        script = PickScript(self.config.step_m, 0.4 * SUPPORT_TOLERANCE, rise)
        return self.carry(scene, controller_state, cube, place, script)

    def _next(self, scene: SceneState) -> tuple[Tensor, Tensor, Tensor]:
        """Return how many levels stand (N,), the next cube's pose (N, 7) and its place (N, 3)."""
        standing = self.levels(scene).sum(dim=1)
        index = standing.clamp(max=len(self.cubes) - 2)
        row = torch.arange(scene.num_envs)
        poses = torch.stack([scene.poses[name] for name in self.cubes], dim=1)
        cube, below = poses[row, index + 1], poses[row, index]
        return standing, cube, below[:, :3] + upward(CUBE_HALF)
