"""navigate: drive a base to a goal among cylinders that must not be touched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import ActionField, ObservationField, Source
from grpo_ros.controllers.twist import COMPONENTS
from grpo_ros.errors import ConfigurationError
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.configured_task import ConfiguredTask, TaskConfig
from grpo_ros.tasks.range_scan import RangeScan
from grpo_ros.tasks.scene_state import SceneState

SCAN = "base_scan"
BASE_RADIUS, OBSTACLE_RADIUS = 0.2, 0.25
HALF_AREA = 2.5
"""Starts, goals and obstacles lie in a square of twice this side, m."""
SMALLEST_TRIP = 2.0
GAP = 2.0 * (OBSTACLE_RADIUS + BASE_RADIUS) + 0.15
"""Obstacles' axes are at least this far apart, so that the base fits between any two, m."""
CLEAR_OF_ENDS = OBSTACLE_RADIUS + BASE_RADIUS + 0.3
MARGIN = 0.06
"""How far the demonstrator stays away from what it must not touch, m."""
ATTEMPTS = 1000


@dataclasses.dataclass(frozen=True)
class NavigateConfig(TaskConfig):
    """Settings of the navigate task."""

    robot: str = typed.setting("diff_base", "Name or folder of the robot description")
    horizon: int = typed.setting(120, "Control periods per episode", minimum=1, maximum=10_000)
    control_rate_hz: float = typed.setting(10.0, "Rate of actions", unit="Hz", minimum=1.0)
    num_obstacles: int = typed.setting(3, "Cylinders in the way", minimum=0, maximum=10)
    speed_m_s: float = typed.setting(0.6, "Speed of an action of 1", unit="m/s", minimum=0.01)
    turn_rad_s: float = typed.setting(1.5, "Turning of an action of 1", unit="rad/s", minimum=0.01)
    goal_radius_m: float = typed.setting(0.3, "Largest distance to the goal", unit="m")


class Navigate(ConfiguredTask):
    """Outcome: the base's centre is within 0.3 m of the goal; touching a cylinder fails."""

    Config = NavigateConfig
    config: NavigateConfig
    name = "navigate"
    instruction = "Drive to the green marker without touching the columns."

    def __init__(self, config: NavigateConfig | None = None) -> None:
        super().__init__(config)
        self.obstacles = tuple(f"column_{i}" for i in range(self.config.num_obstacles))
        if len(self.robot.arm_joints) != 3 or self.robot.gripper is not None:
            raise ConfigurationError(
                f"robot '{self.robot.name}' is no base", expected="joints x, y and yaw alone"
            )
        x, y, yaw = self.robot.arm_joints
        self._sensors = (RangeScan(SCAN, (x, y, yaw), self.obstacles),)

    # ---------------------------------------------------------------- scene and contract

    def bodies(self) -> Sequence[Body]:
        """Return floor, goal marker and columns; contact is verified from poses alone."""
        floor = Body(
            "floor",
            "box",
            (3.5, 3.5, 0.01),
            position=(0.0, 0.0, -0.02),
            motion="static",
            colour=(0.75, 0.75, 0.72, 1.0),
        )
        goal = Body(
            "goal",
            "cylinder",
            (self.config.goal_radius_m, 0.002),
            motion="kinematic",
            visual_only=True,
            colour=(0.1, 0.7, 0.25, 0.8),
        )
        columns = [
            Body(
                name,
                "cylinder",
                (OBSTACLE_RADIUS, 0.25),
                motion="kinematic",
                visual_only=True,
                colour=(0.7, 0.35, 0.2, 1.0),
            )
            for name in self.obstacles
        ]
        return floor, goal, *columns

    def sensors(self) -> Sequence[RangeScan]:
        """Return the laser."""
        return self._sensors

    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Return where the goal is, the last action and the scan."""
        goal, scan = Source("polar", ("goal",), TIP), Source("scan", (SCAN,))
        return (
            ObservationField("goal", (3,), goal, frame=self.robot.tip_frame),
            ObservationField("last_action", (2,), Source("last_action")),
            ObservationField("scan", (self._sensors[0].num_beams,), scan, unit="m"),
        )

    def action_fields(self) -> tuple[ActionField, ...]:
        """Return the base's speed and turning."""
        base = self.robot.tip_frame
        scale, unit = (self.config.speed_m_s, self.config.turn_rad_s), "m/s, rad/s"
        return (
            ActionField("base", "twist", COMPONENTS, scale, unit, base, base, controller="base"),
        )

    # ---------------------------------------------------------------- initial states

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw start, heading, goal at least 2 m away, and columns with room between them."""
        joints = torch.zeros(len(keys), 3, dtype=torch.float64)
        poses = {name: _upright(len(keys), 0.25) for name in self.obstacles}
        poses["goal"] = _upright(len(keys), 0.0)
        for i, key in enumerate(keys):
            source = generator("navigate/initial_state", key)
            start, goal, columns = self._layout(source)
            joints[i, :2] = torch.from_numpy(start)
            joints[i, 2] = source.uniform(-math.pi, math.pi)
            poses["goal"][i, :2] = torch.from_numpy(goal)
            for name, column in zip(self.obstacles, columns, strict=True):
                poses[name][i, :2] = torch.from_numpy(column)
        return SceneState(self.robot.joint_names, joints, torch.zeros_like(joints), poses)

    def _layout(
        self, source: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], list[NDArray[np.float64]]]:
        """Draw until everything fits; a crowded area may take several beginnings."""
        while True:
            start, goal = source.uniform(-HALF_AREA, HALF_AREA, (2, 2))
            if np.linalg.norm(goal - start) < SMALLEST_TRIP:
                continue
            columns: list[NDArray[np.float64]] = []
            for _ in range(ATTEMPTS):
                if len(columns) == len(self.obstacles):
                    return start, goal, columns
                place = source.uniform(-HALF_AREA, HALF_AREA, 2)
                ends = min(np.linalg.norm(place - start), np.linalg.norm(place - goal))
                gaps = [float(np.linalg.norm(place - other)) for other in columns]
                if ends >= CLEAR_OF_ENDS and min(gaps, default=math.inf) >= GAP:
                    columns.append(place)

    # ---------------------------------------------------------------- verification

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify that the base is at the goal, and that it touches no column."""
        distance = self._to_goal(scene)
        touches = self._clearance(scene) <= 0.0
        success = (distance < self.config.goal_radius_m) & ~touches
        near = torch.clamp(1.0 - distance / (4.0 * HALF_AREA), 0.0, 1.0)
        return Outcome(success, touches, torch.where(success, 1.0, 0.9 * near).float())

    def potential(self, scene: SceneState) -> Tensor:
        """Return minus the distance to the goal, m."""
        return -self._to_goal(scene)

    def _base(self, scene: SceneState) -> Tensor:
        return scene.joints(self.robot.arm_joints)

    def _to_goal(self, scene: SceneState) -> Tensor:
        offset = scene.position("goal")[:, :2] - self._base(scene)[:, :2]
        return torch.sqrt(offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1])

    def _clearance(self, scene: SceneState) -> Tensor:
        """Return the distance (N,) between the base's rim and the nearest column's, m."""
        if not self.obstacles:
            return torch.full((scene.num_envs,), math.inf, dtype=torch.float64)
        offset = self._columns(scene) - self._base(scene)[:, None, :2]
        square = offset[..., 0] * offset[..., 0] + offset[..., 1] * offset[..., 1]
        return torch.sqrt(square).amin(dim=1) - (BASE_RADIUS + OBSTACLE_RADIUS)

    def _columns(self, scene: SceneState) -> Tensor:
        """Return the columns' axes (N, B, 2)."""
        return torch.stack([scene.position(name)[:, :2] for name in self.obstacles], dim=1)

    # ---------------------------------------------------------------- demonstrator

    def demonstrate(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the scripted action: drive to the goal, or to the best tangent of a column."""
        base = self._base(scene)
        waypoint = self._waypoint(scene, base[:, :2])
        ahead = waypoint - base[:, :2]
        error = torch.atan2(ahead[:, 1], ahead[:, 0]) - base[:, 2]
        error = torch.remainder(error + math.pi, 2.0 * math.pi) - math.pi
        turn = 2.5 * error / self.config.turn_rad_s
        speed = torch.cos(error).clamp(min=0.0) ** 4
        return torch.stack([speed, turn], dim=-1).clamp(-1.0, 1.0)

    def _waypoint(self, scene: SceneState, base: Tensor) -> Tensor:
        """Return where to drive (N, 2): of the goal and all tangents, the shortest free detour."""
        goal = scene.position("goal")[:, :2]
        if not self.obstacles:
            return goal
        columns = self._columns(scene)
        offset = columns - base[:, None]
        distance = torch.linalg.vector_norm(offset, dim=-1)
        # Too near a column for its margin, the base drives along the circle that it is on.
        reach = torch.clamp(distance - 1e-3, max=OBSTACLE_RADIUS + BASE_RADIUS + MARGIN)
        along = torch.sqrt(distance.square() - reach.square())
        sine, cosine = reach / distance, along / distance
        tangents = []
        for side in (1.0, -1.0):
            x = offset[..., 0] * cosine - side * offset[..., 1] * sine
            y = side * offset[..., 0] * sine + offset[..., 1] * cosine
            turned = torch.stack([x, y], dim=-1) / distance.unsqueeze(-1)
            length = torch.clamp(along, min=0.25).unsqueeze(-1)
            tangents.append(base[:, None] + turned * length)
        candidates = torch.cat([goal[:, None], *tangents], dim=1)
        first = torch.linalg.vector_norm(candidates - base[:, None], dim=-1)
        second = torch.linalg.vector_norm(goal[:, None] - candidates, dim=-1)
        blocked = _blocked(base[:, None], candidates, columns, reach - 2e-3)
        later = _blocked(candidates, goal[:, None].expand_as(candidates), columns, reach - 2e-3)
        cost = first + second + 100.0 * blocked + 0.3 * later
        best = cost.argmin(dim=1)
        chosen: Tensor = candidates[torch.arange(len(best)), best]
        return chosen


def _blocked(start: Tensor, end: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Return which segments (N, C, 2) pass through a circle (N, B, 2) of radius (N, B); (N, C)."""
    segment = (end - start).unsqueeze(2)
    to_centre = centres.unsqueeze(1) - start.unsqueeze(2)
    length = segment.square().sum(-1).clamp(min=1e-12)
    share = ((to_centre * segment).sum(-1) / length).clamp(0.0, 1.0)
    nearest = to_centre - share.unsqueeze(-1) * segment
    inside: Tensor = torch.linalg.vector_norm(nearest, dim=-1) < radii.unsqueeze(1)
    return inside.any(dim=2)


def _upright(num: int, height: float) -> Tensor:
    """Return poses (num, 7) at the origin, with their centres at a height."""
    pose = torch.tensor([0.0, 0.0, height, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    return pose.repeat(num, 1)
