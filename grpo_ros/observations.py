"""Observation assembly: from a scene and the controller's state to a policy's input.

One pure function, used by every simulator and by the deployment node, so that what a policy sees
on a robot is what it was trained on. Row i of the result depends on row i of the input alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.contract import Contract, ObservationField, Source
from grpo_ros.errors import ContractError
from grpo_ros.robots.robot import Robot
from grpo_ros.tasks.scene_state import SceneState

TIP = "tip"
"""Name under which a source refers to the robot's tip, computed from the measured joints."""

VECTOR_KINDS = (
    "joint_position",
    "joint_velocity",
    "position",
    "height",
    "yaw",
    "command_error",
    "gripper_command",
    "last_action",
    "polar",
    "scan",
)

NAMED_KINDS = ("position", "height", "yaw", "polar", "scan", "camera")
"""Kinds of sources that are of the first name which they have."""


class ObservationAssembler:
    """Computes the float32 fields of a contract.

    Args:
        contract: what the policy observes.
        robot: whose kinematics give the tip.
        has_images: whether fields of cameras are given by somebody else; they are left out here.

    Raises:
        ContractError: a field's source is of a kind that this version does not assemble, or
            names nothing.
    """

    def __init__(self, contract: Contract, robot: Robot, has_images: bool = False) -> None:
        self.contract, self.robot = contract, robot
        self._fields = [
            field
            for field in contract.observation
            if not (has_images and field.source.kind == "camera")
        ]
        for field in contract.observation:
            if field.source.kind in NAMED_KINDS and not field.source.names:
                raise ContractError(
                    f"observation field '{field.name}' has a source '{field.source.kind}' of no "
                    "name",
                    expected="one body, frame or sensor",
                )
        for field in self._fields:
            if field.source.kind not in VECTOR_KINDS:
                raise ContractError(
                    f"observation field '{field.name}' has source '{field.source.kind}'",
                    expected=f"one of {', '.join(VECTOR_KINDS)}",
                )
            if field.history != 1:
                raise ContractError(
                    f"observation field '{field.name}' has history {field.history}", expected="1"
                )
        self.body_names = body_names(contract)

    def __call__(
        self, scene: SceneState, controller_state: Mapping[str, Tensor], last_action: Tensor
    ) -> dict[str, Tensor]:
        """Return field name -> (N, size) float32.

        Args:
            scene: measured joints and the poses of `body_names`.
            controller_state: the controller's state, rows as in the scene.
            last_action: (N, A) the action executed last, zeros at the start of an episode.
        """
        arm = scene.joints(self.robot.arm_joints)
        tip_position, tip_rotation = self.robot.chain.forward(arm)
        measured = _Measured(
            scene,
            tip_position,
            rotations.yaw_of_matrix(tip_rotation),
            controller_state,
            last_action,
        )
        obs = {}
        for field in self._fields:
            value = measured.read(field)
            if field.scale != 1.0:
                value = value * field.scale
            obs[field.name] = value.to(torch.float32)
        return obs


def body_names(contract: Contract) -> tuple[str, ...]:
    """Return the bodies whose poses a contract needs, the robot's own tip apart."""
    names: dict[str, None] = {}
    for field in contract.observation:
        if field.source.kind in ("position", "height", "yaw", "polar"):
            for name in (*field.source.names, field.source.relative_to):
                if name and name != TIP:
                    names[name] = None
    return tuple(names)


class _Measured:
    """The quantities of one moment, read by source."""

    def __init__(
        self,
        scene: SceneState,
        tip_position: Tensor,
        tip_yaw: Tensor,
        controller_state: Mapping[str, Tensor],
        last_action: Tensor,
    ) -> None:
        self.scene, self.tip_position, self.tip_yaw = scene, tip_position, tip_yaw
        self.controller_state, self.last_action = controller_state, last_action

    def read(self, field: ObservationField) -> Tensor:
        """Return the value (N, size) of a field's source."""
        source = field.source
        match source.kind:
            case "joint_position":
                return self.scene.joints(source.names)
            case "joint_velocity":
                return self.scene.joint_velocity[:, self.scene.joint_columns(source.names)]
            case "position":
                return self._offset(source)
            case "height":
                return self._offset(source)[:, 2:]
            case "yaw":
                angle = self._yaw(source.names[0])
                if source.relative_to:
                    angle = angle - self._yaw(source.relative_to)
                angle = angle * source.symmetry
                return torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)
            case "command_error":
                return self.controller_state["tip"] - self.tip_position
            case "gripper_command":
                return self.controller_state["gripper"]
            case "last_action":
                return self.last_action
            case "polar":
                return self._polar(source)
            case "scan":
                return self.scene.reading(source.names[0])
        raise ContractError(f"observation field '{field.name}' has source '{source.kind}'")

    def _offset(self, source: Source) -> Tensor:
        position = self._position(source.names[0])
        if source.relative_to:
            position = position - self._position(source.relative_to)
        return position

    def _polar(self, source: Source) -> Tensor:
        """Return planar distance, and cos and sin of the bearing from `relative_to`'s heading."""
        offset = self._offset(source)
        x, y = offset[:, 0], offset[:, 1]
        distance = torch.sqrt(x * x + y * y)
        heading = self._yaw(source.relative_to)
        cosine, sine = torch.cos(heading), torch.sin(heading)
        far = distance.clamp(min=1e-9)
        ahead, left = (x * cosine + y * sine) / far, (y * cosine - x * sine) / far
        return torch.stack([distance, ahead, left], dim=-1)

    def _position(self, name: str) -> Tensor:
        return self.tip_position if name == TIP else self.scene.position(name)

    def _yaw(self, name: str) -> Tensor:
        if name == TIP:
            return self.tip_yaw
        return rotations.yaw_of_quaternion(self.scene.quaternion(name))
