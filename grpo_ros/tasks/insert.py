"""insert: put a square peg, held by the gripper, into a square hole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import rotations, typed
from grpo_ros.contract import ObservationField, Source
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.tasks.arm_task import (
    TABLE,
    ArmTask,
    ArmTaskConfig,
    draw_place,
    draw_tip,
    pose,
    turn_to_face,
    upward,
)
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.scene_state import SceneState

PEG_HALF, PEG_HALF_LENGTH = 0.0125, 0.04
HOLE_DEPTH = 0.05
WALL_HALF = 0.01
"""Half the thickness of the socket's walls, m."""
FRICTION = 0.3
"""Of smooth plastic on smooth plastic; the finger pads' own is higher, and theirs counts."""
GRIP_HEIGHT = 0.02
"""How far above the peg's centre the gripper holds it, m."""
GRIP_OPENING = PEG_HALF - 3e-4
"""The fingers' position around the peg at the start: pads already press, m."""
WALLS = ("wall_right", "wall_left", "wall_front", "wall_back")
DIRECTIONS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
"""Where each wall is from the hole's axis."""
HOVER = 0.006
"""How far above the hole the script's peg waits until it is in line and still, m."""
DESCENT = 0.004
"""How far the script's command is below the tip at most where the peg enters, m."""


@dataclasses.dataclass(frozen=True)
class InsertConfig(ArmTaskConfig):
    """Settings of the insert task."""

    horizon: int = typed.setting(60, "Control periods per episode", minimum=1, maximum=10_000)
    step_m: float = typed.setting(0.01, "Translation of an action of 1", unit="m", minimum=1e-3)
    step_rad: float = typed.setting(0.1, "Rotation of an action of 1", unit="rad", minimum=1e-3)
    clearance_m: float = typed.setting(
        0.001,
        "Room on each side of a centred peg",
        unit="m",
        minimum=2e-4,
        maximum=5e-3,
    )
    depth_m: float = typed.setting(
        0.035, "How deep the peg has to be", unit="m", minimum=0.005, maximum=HOLE_DEPTH - 0.005
    )
    grip_offset_m: float = typed.setting(
        0.003, "Largest offset of the peg in the hand", unit="m", minimum=0.0, maximum=0.006
    )
    pose_error_m: float = typed.setting(
        0.0, "Largest hidden error of the hole's seen x and y", unit="m", minimum=0.0, maximum=0.01
    )
    area_m: tuple[float, float] = typed.setting(
        (0.16, 0.30), "Extent in x and y of where the hole is drawn", unit="m", minimum=0.0
    )


class Insert(ArmTask):
    """Outcome: the peg stands upright in the hole, 35 mm deep, in line with its sides.

    `hole` is where the hole is said to be; the walls are where it is. They differ by a hidden
    error where `pose_error_m` is above 0, constant in an episode and equal within a group.
    """

    Config = InsertConfig
    config: InsertConfig
    name = "insert"
    instruction = "Insert the peg into the hole."
    commands_gripper = False
    handles_objects = True

    def bodies(self) -> Sequence[Body]:
        """Return table, peg, the four walls of the socket, and a mark where the hole is seen."""
        inner = PEG_HALF + self.config.clearance_m
        half_height = HOLE_DEPTH / 2.0
        sides = (WALL_HALF, inner + 2.0 * WALL_HALF, half_height)
        ends = (inner, WALL_HALF, half_height)
        walls = [
            Body(
                name,
                "box",
                size,
                friction=FRICTION,
                motion="kinematic",
                colour=(0.3, 0.35, 0.42, 1.0),
            )
            for name, size in zip(WALLS, (sides, sides, ends, ends), strict=True)
        ]
        peg = Body(
            "peg",
            "box",
            (PEG_HALF, PEG_HALF, PEG_HALF_LENGTH),
            mass=0.05,
            friction=FRICTION,
            colour=(0.9, 0.5, 0.1, 1.0),
        )
        hole = Body(
            "hole",
            "cylinder",
            (0.004, 0.0005),
            motion="kinematic",
            visual_only=True,
            colour=(0.1, 0.7, 0.25, 1.0),
        )
        return TABLE, peg, *walls, hole

    def object_fields(self) -> tuple[ObservationField, ...]:
        """Return the hole's mouth from the peg, the turn between them, the peg in the hand."""
        return (
            self.position_field("hole_from_peg", "hole", "peg"),
            ObservationField("peg_yaw_from_hole", (2,), Source("yaw", ("peg",), "hole", 4)),
            self.position_field("peg_from_tip", "peg", TIP),
        )

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw the hole, what is seen of it, the arm above the table and the peg in its hand."""
        num = len(keys)
        names = ("peg", "hole", *WALLS)
        poses = {name: torch.empty(num, 7, dtype=torch.float64) for name in names}
        tip = torch.empty(num, 3, dtype=torch.float64)
        yaw = torch.empty(num, dtype=torch.float64)
        grip, error = self.config.grip_offset_m, self.config.pose_error_m
        for i, key in enumerate(keys):
            source = generator("insert/initial_state", key)
            hole, turn = draw_place(source, self.config.area_m), source.uniform(-0.3, 0.3)
            position, yaw[i] = draw_tip(source, 0.16, 0.24)
            tip[i] = torch.from_numpy(position)
            along, up = source.uniform(-grip, grip, 2)
            seen = hole + source.uniform(-error, error, 2)
            poses["hole"][i] = pose((*seen, HOLE_DEPTH), turn)
            for name, wall in zip(WALLS, self._walls(hole, turn), strict=True):
                poses[name][i] = wall
            poses["peg"][i] = self._held(tip[i], float(yaw[i]), along, up)
        return self.start(tip, yaw, GRIP_OPENING, poses)

    def _walls(self, hole: NDArray[np.float64], turn: float) -> list[Tensor]:
        """Return the poses of the walls around a hole at (2,)."""
        reach = PEG_HALF + self.config.clearance_m + WALL_HALF
        sine, cosine = math.sin(turn), math.cos(turn)
        return [
            pose(
                (
                    hole[0] + reach * (x * cosine - y * sine),
                    hole[1] + reach * (x * sine + y * cosine),
                    HOLE_DEPTH / 2.0,
                ),
                turn,
            )
            for x, y in DIRECTIONS
        ]

    def _held(self, tip: Tensor, yaw: float, along: float, up: float) -> Tensor:
        """Return the peg's pose in a hand whose fingers close across its x axis."""
        x, y, z = tip.tolist()
        sine, cosine = math.sin(yaw), math.cos(yaw)
        return pose((x + along * cosine, y + along * sine, z - GRIP_HEIGHT + up), yaw)

    # ---------------------------------------------------------------- verification

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify depth, place, turn and tilt; a peg that has left the hand fails."""
        axis = self._peg_axis(scene)
        bottom = scene.position("peg") - PEG_HALF_LENGTH * axis
        depth = HOLE_DEPTH - bottom[:, 2]
        lateral = torch.linalg.vector_norm((bottom - self._mouth(scene))[:, :2], dim=-1)
        turn = turn_to_face(self._hole_yaw(scene), self._peg_yaw(scene)).abs()
        success = (
            (depth > self.config.depth_m)
            & (lateral < 1.5 * self.config.clearance_m + 0.001)
            & (turn < 0.15)
            & (axis[:, 2] > math.cos(0.1))
        )
        near = 0.5 * torch.clamp(1.0 - lateral / 0.2, 0.0, 1.0)
        inside = torch.where(lateral < PEG_HALF, depth / self.config.depth_m, 0.0)
        score = 0.9 * (near + 0.5 * inside.clamp(0.0, 1.0))
        lost = torch.linalg.vector_norm(scene.position("peg") - self.tip(scene), dim=-1) > 0.06
        return Outcome(success, lost & ~success, torch.where(success, 1.0, score).float())

    def potential(self, scene: SceneState) -> Tensor:
        """Return minus the way of the peg's bottom to its place in the hole, and of its turn."""
        bottom = scene.position("peg") - PEG_HALF_LENGTH * self._peg_axis(scene)
        way = bottom - self._mouth(scene) + upward(self.config.depth_m)
        turn = turn_to_face(self._hole_yaw(scene), self._peg_yaw(scene)).abs()
        potential: Tensor = -torch.linalg.vector_norm(way, dim=-1) - 0.05 * turn
        return potential

    def _mouth(self, scene: SceneState) -> Tensor:
        """Return the true middle of the hole's opening (N, 3)."""
        middle = torch.stack([scene.position(name) for name in WALLS]).mean(dim=0)
        return middle + upward(HOLE_DEPTH / 2.0)

    def _hole_yaw(self, scene: SceneState) -> Tensor:
        return rotations.yaw_of_quaternion(scene.quaternion(WALLS[0]))

    def _peg_yaw(self, scene: SceneState) -> Tensor:
        return rotations.yaw_of_quaternion(scene.quaternion("peg"))

    def _peg_axis(self, scene: SceneState) -> Tensor:
        return rotations.quaternion_to_matrix(scene.quaternion("peg"))[..., 2]

    # ---------------------------------------------------------------- demonstrator

    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the script's action: travel, align above the hole, settle, push down.

        It sees the hole where it is, also where the policy is told something else.
        """
        config, peg, hole = self.config, scene.position("peg"), self._mouth(scene)
        tip, rotation = self.robot.chain.forward(scene.joints(self.robot.arm_joints))
        bottom = peg[:, 2] - PEG_HALF_LENGTH
        offset = hole - peg
        away = torch.linalg.vector_norm(offset[:, :2], dim=-1)
        turn = turn_to_face(self._hole_yaw(scene), self._peg_yaw(scene))
        above = bottom - HOLE_DEPTH
        wanted = torch.cat([tip[:, :2] + offset[:, :2], tip[:, 2:]], dim=-1)
        # Vertical accelerations sway the tip sideways: the descent is slow at the hole's mouth,
        # and slower the farther the peg is off its axis, but does not start and stop.
        astray = torch.maximum(away / config.clearance_m, turn.abs() / 0.04)
        gate = (1.5 - astray).clamp(0.0, 1.0)
        gate = torch.where(above < -0.003, gate.clamp(min=0.5), gate)
        near = torch.where(above < 0.0, DESCENT, (0.3 * above).clamp(DESCENT, config.step_m))
        fall = torch.where(above < HOVER, gate * near, near)
        rise = 0.03 - above
        wanted[:, 2] += torch.where(away > 0.02, rise, -fall)
        delta = (wanted - controller_state["tip"]) / config.step_m
        ahead = controller_state["yaw"][:, 0] - rotations.yaw_of_matrix(rotation)
        ahead = torch.remainder(ahead + math.pi, 2.0 * math.pi) - math.pi
        turning = (turn - ahead) / config.step_rad
        return torch.cat([delta, turning.unsqueeze(1)], dim=-1).clamp(-1.0, 1.0)
