"""ArmTask: what tasks of an arm with a gripper, pointing down at a table, have in common."""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import rotations, typed
from grpo_ros.contract import ActionField, ActionKind, ObservationField, Source
from grpo_ros.controllers import ActionController, make_controller
from grpo_ros.controllers.cartesian_delta import DAMPING, FREE_JOINTS, HOME_PULL
from grpo_ros.errors import ConfigurationError
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key
from grpo_ros.robots.kinematics import columns, damped_least_squares, rows, solve_ik
from grpo_ros.robots.robot import Gripper
from grpo_ros.tasks.base import Body, Outcome
from grpo_ros.tasks.camera import Camera, top
from grpo_ros.tasks.configured_task import ConfiguredTask, TaskConfig
from grpo_ros.tasks.scene_state import SceneState

TABLE = Body(
    "table",
    "box",
    (0.35, 0.5, 0.02),
    position=(0.5, 0.0, -0.02),
    motion="static",
    colour=(0.75, 0.7, 0.62, 1.0),
)
"""Its surface is the plane z = 0 of the arm's base."""
CENTRE = (0.5, 0.0)
"""Of the area where things are drawn, m."""


@dataclasses.dataclass(frozen=True)
class ArmTaskConfig(TaskConfig):
    """Settings that tasks of an arm share."""

    action: str = typed.setting("cartesian_delta", "cartesian_delta | joint_delta")
    motion: Literal["linear", "smooth"] = typed.setting(
        "smooth",
        "Between targets: smooth, with the lag of what is sent to a robot; or linear, without it",
    )
    step_m: float = typed.setting(0.03, "Translation of an action of 1", unit="m", minimum=1e-3)
    step_rad: float = typed.setting(0.15, "Rotation of an action of 1", unit="rad", minimum=1e-3)


class ArmTask(ConfiguredTask):
    """Contract and demonstrations; a task adds its scene, its outcome and its script.

    Attributes:
        commands_gripper: whether actions open and close it; otherwise it stays closed.
        handles_objects: whether the hand points down at things, at any yaw, to hold them.
    """

    Config: type[ArmTaskConfig] = ArmTaskConfig
    config: ArmTaskConfig
    commands_gripper = True
    handles_objects = False

    def __init__(self, config: ArmTaskConfig | None = None) -> None:
        super().__init__(config)
        if self.robot.gripper is None:
            raise ConfigurationError(
                f"robot '{self.robot.name}' has no gripper", expected=f"one for {self.name}"
            )
        self.gripper: Gripper = self.robot.gripper
        num, unit = len(self.robot.arm_joints), self.robot.gripper_unit
        if self.handles_objects and (num < FREE_JOINTS or unit != "m"):
            raise ConfigurationError(
                f"robot '{self.robot.name}' has {num} arm joints and a gripper in {unit}",
                expected=f"{FREE_JOINTS} arm joints or more, to point down at any yaw, and a "
                f"parallel gripper in m, for {self.name}",
                remedy="a task that leads the tip by joint_delta suits other arms: "
                "docs/how-to/add_a_task.md",
            )

    @property
    def motion(self) -> Literal["linear", "smooth"]:
        """How targets are joined in training."""
        return self.config.motion

    # ---------------------------------------------------------------- what a task adds

    @abc.abstractmethod
    def bodies(self) -> Sequence[Body]:
        """Return the primitives of the scene, beside the robot."""

    @abc.abstractmethod
    def object_fields(self) -> tuple[ObservationField, ...]:
        """Return the observations of the task's objects."""

    @abc.abstractmethod
    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw one initial state per key; a state depends on its own key alone."""

    @abc.abstractmethod
    def outcome(self, scene: SceneState) -> Outcome:
        """Verify the outcome in each scene."""

    @abc.abstractmethod
    def demonstrate_tip(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the script's action (N, 4 or 5): x, y, z, yaw and gripper, as cartesian_delta."""

    # ---------------------------------------------------------------- contract

    def views(self) -> Sequence[Camera]:
        """Return the overview, and `top`, steeply down on the middle of the table."""
        return (*super().views(), top(self.bodies()))

    def position_field(self, name: str, body: str, relative_to: str = "") -> ObservationField:
        """Return an observation of where a body is, in the axes of the arm's base."""
        source = Source("position", (body,), relative_to)
        return ObservationField(name, (3,), source, unit="m", frame=self.robot.base_frame)

    def observation_fields(self) -> tuple[ObservationField, ...]:
        """Return what is seen of tip, objects, gripper, and of how far the command is ahead."""
        fields = [
            ObservationField("tip_height", (1,), Source("height", (TIP,)), unit="m"),
            *self.object_fields(),
        ]
        if self.commands_gripper:
            opening = Source("joint_position", (self.gripper.joint,))
            unit = self.robot.gripper_unit
            fields.append(ObservationField("gripper_position", (1,), opening, unit=unit))
            fields.append(ObservationField("gripper_command", (1,), Source("gripper_command")))
        fields.append(ObservationField("command_error", (3,), Source("command_error"), unit="m"))
        if self.config.action == "joint_delta":
            source = Source("joint_position", self.robot.arm_joints)
            size = len(self.robot.arm_joints)
            unit = self._joint_unit
            fields.append(ObservationField("joint_position", (size,), source, unit=unit))
        return tuple(fields)

    def action_fields(self) -> tuple[ActionField, ...]:
        """Return the arm's motion, and the gripper's if it is commanded."""
        config, frame, tip = self.config, self.robot.base_frame, self.robot.tip_frame
        kind: ActionKind
        scale: tuple[float, ...]
        num = len(self.robot.arm_joints)
        if config.action == "cartesian_delta" and num < FREE_JOINTS:
            raise ConfigurationError(
                f"task.action = 'cartesian_delta' with robot '{self.robot.name}' of {num} joints",
                expected=f"{FREE_JOINTS} or more, to point down at any yaw",
                remedy="task.action:=joint_delta",
            )
        if config.action == "cartesian_delta":
            kind, unit = "cartesian_delta", "m, rad"
            names: tuple[str, ...] = ("x", "y", "z", "yaw")
            scale = (*(config.step_m,) * 3, config.step_rad)
        elif config.action == "joint_delta":
            kind, unit = "joint_delta", self._joint_unit
            names, scale = self.robot.arm_joints, self._joint_steps
        else:
            raise ConfigurationError(
                f"task.action = '{config.action}'", expected="cartesian_delta | joint_delta"
            )
        arm = ActionField("arm", kind, names, scale, unit, frame, tip, controller="arm")
        if not self.commands_gripper:
            return (arm,)
        joint = (self.gripper.joint,)
        return arm, ActionField("gripper", "gripper", joint, (1.0,), controller="gripper")

    @property
    def _joint_steps(self) -> tuple[float, ...]:
        """How far an action of 1 moves each arm joint: m where it slides, rad where it turns."""
        slides, turns = self.config.step_m, self.config.step_rad
        kinds = self.robot.chain.joint_kinds
        return tuple(slides if kind == "prismatic" else turns for kind in kinds)

    @property
    def _joint_unit(self) -> str:
        kinds = self.robot.chain.joint_kinds
        units = ("m" if kind == "prismatic" else "rad" for kind in kinds)
        return ", ".join(dict.fromkeys(units))

    # ---------------------------------------------------------------- demonstrations

    def demonstrate(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the scripted action (N, A); a function of the scene, so it can take over."""
        action = self.demonstrate_tip(scene, controller_state)
        if self.config.action == "cartesian_delta":
            return action
        motion = self._joint_motion(scene, controller_state, action)
        delta = motion / motion.new_tensor(self._joint_steps)
        return torch.cat([delta.clamp(-1.0, 1.0), action[:, 4:]], dim=-1)

    def _joint_motion(
        self, scene: SceneState, controller_state: Mapping[str, Tensor], action: Tensor
    ) -> Tensor:
        """Return the joint motion (N, A) that a cartesian action asks for, rad or m."""
        arm, target = len(self.robot.arm_joints), controller_state["target"]
        if arm >= FREE_JOINTS:
            # cartesian_delta's commanded tip runs ahead of the joints, so that they need not be
            # able to stop after every action; joint_delta has none, and is led two actions ahead.
            ahead = {
                **controller_state,
                "tip": controller_state["tip"] + self.config.step_m * action[:, :3],
                "yaw": controller_state["yaw"] + self.config.step_rad * action[:, 3:4],
            }
            reached = self._cartesian_controller.step(ahead, self.demonstrate_tip(scene, ahead))
            return (reached["target"] - target)[:, :arm]
        # Too few joints to keep the hand upright: the tip is led, and the hand turns as it must.
        joints = columns(target[:, :arm])
        jacobian = np.ascontiguousarray(self.robot.chain.pose(joints).jacobian[:3])
        pull = HOME_PULL * (self.robot.home[:arm, None].numpy() - joints)
        step = self.config.step_m * columns(action[:, :3])
        return rows(damped_least_squares(jacobian, step, DAMPING, pull))

    @functools.cached_property
    def _cartesian_controller(self) -> ActionController:
        config = dataclasses.replace(self.config, action="cartesian_delta")
        return make_controller(type(self)(config).contract(), self.robot)

    # ---------------------------------------------------------------- for scenes and scripts

    def start(
        self, tip: Tensor, yaw: Tensor, opening_m: float, poses: Mapping[str, Tensor]
    ) -> SceneState:
        """Return a scene at rest: the arm as in `arm_at`, bodies at their poses (N, 7)."""
        joints = self.arm_at(tip, yaw, opening_m)
        moving = [body.name for body in self.bodies() if body.motion == "dynamic"]
        still = {name: torch.zeros(len(tip), 6, dtype=torch.float64) for name in moving}
        return SceneState(self.robot.joint_names, joints, torch.zeros_like(joints), poses, still)

    def arm_at(self, tip: Tensor, yaw: Tensor, opening_m: float) -> Tensor:
        """Return joint positions (N, J) with the tip at (N, 3), pointing down, turned by (N,)."""
        joints = self.robot.home.repeat(len(tip), 1)
        arm = len(self.robot.arm_joints)
        joints[:, :arm] = solve_ik(
            self.robot.chain, tip, rotations.pointing_down(yaw), joints[:, :arm]
        )
        joints[:, arm] = opening_m
        return joints

    def tip(self, scene: SceneState) -> Tensor:
        """Return the measured position of the tip (N, 3)."""
        position: Tensor = self.robot.chain.forward(scene.joints(self.robot.arm_joints))[0]
        return position

    def opening(self, scene: SceneState) -> Tensor:
        """Return the measured position of the gripper's driver joint (N,), m."""
        return scene.joint_position[:, len(self.robot.arm_joints)]


def draw_place(source: np.random.Generator, area_m: tuple[float, float]) -> NDArray[np.float64]:
    """Draw x and y (2,) in an area around CENTRE, m."""
    half = np.array(area_m) / 2.0
    return np.array(CENTRE) + source.uniform(-half, half)


def draw_tip(
    source: np.random.Generator, lowest: float, highest: float
) -> tuple[NDArray[np.float64], float]:
    """Draw the tip's position (3,) between two heights above the table, and its yaw."""
    tip = source.uniform([0.42, -0.12, lowest], [0.58, 0.12, highest])
    return tip, source.uniform(-0.4, 0.4)


def pose(position: tuple[float, float, float], yaw: float = 0.0) -> Tensor:
    """Return the pose (7,) of a body that stands upright, turned by yaw (rad) about z."""
    half = yaw / 2.0
    return torch.tensor([*position, 0.0, 0.0, np.sin(half), np.cos(half)], dtype=torch.float64)


def upward(height: float) -> Tensor:
    """Return the vector (3,) of a height, m."""
    return torch.tensor([0.0, 0.0, height], dtype=torch.float64)


def turn_to_face(wanted: Tensor, commanded: Tensor) -> Tensor:
    """Return the smallest turn (N,) from a yaw to one of the four faces at another, rad."""
    error = wanted - commanded
    quarter = torch.pi / 2
    turn: Tensor = error - quarter * torch.round(error / quarter)
    return turn
