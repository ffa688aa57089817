"""pick_place: grasp a cube and set it down on a goal."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import rotations, typed
from grpo_ros.contract import ActionField, Contract, ObservationField, Source
from grpo_ros.controllers import ActionController, make_controller
from grpo_ros.errors import ConfigurationError
from grpo_ros.observations import TIP
from grpo_ros.randomness import Key, generator
from grpo_ros.robots.kinematics import solve_ik
from grpo_ros.robots.robot import Robot, load_robot
from grpo_ros.tasks.base import Body, Outcome, Randomisation
from grpo_ros.tasks.range_scan import RangeScan
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.tasks.shaping import REWARDS, check_rewards, reward_terms

CUBE_HALF = 0.02
HOVER_HEIGHT = 0.10
"""Height of the tip above the table while it travels, m."""


@dataclasses.dataclass(frozen=True)
class PickPlaceConfig:
    """Settings of the pick_place task."""

    robot: str = typed.setting("franka_fr3", "Name or folder of the robot description")
    action: str = typed.setting("cartesian_delta", "cartesian_delta | joint_delta")
    horizon: int = typed.setting(50, "Control periods per episode", minimum=1, maximum=10_000)
    chunk_size: int = typed.setting(4, "Actions per decision", minimum=1, maximum=64)
    control_rate_hz: float = typed.setting(20.0, "Rate of actions", unit="Hz", minimum=1.0)
    step_m: float = typed.setting(0.03, "Translation of an action of 1", unit="m", minimum=1e-3)
    step_rad: float = typed.setting(0.15, "Rotation of an action of 1", unit="rad", minimum=1e-3)
    goal_radius_m: float = typed.setting(0.025, "Largest distance to the goal", unit="m")
    rest_speed_m_s: float = typed.setting(0.05, "Largest speed of a cube at rest", unit="m/s")
    rewards: tuple[str, ...] = typed.setting(
        ("outcome",), f"Reward terms, of {', '.join(REWARDS)}"
    )
    randomisation: Randomisation = typed.setting(
        factory=Randomisation, description="What is drawn per episode"
    )


class PickPlace:
    """Outcome: the cube lies within 25 mm of the goal, at rest, released."""

    Config = PickPlaceConfig
    name = "pick_place"
    instruction = "Pick up the cube and place it on the green marker."

    def __init__(self, config: PickPlaceConfig | None = None) -> None:
        self.config = config or PickPlaceConfig()
        self.robot: Robot = load_robot(self.config.robot)
        self.horizon = self.config.horizon
        self.randomisation = self.config.randomisation
        self.reward_names = check_rewards(self.config.rewards)
        if self.robot.gripper is None:
            raise ConfigurationError(
                f"robot '{self.robot.name}' has no gripper", expected="one for pick_place"
            )

    # ---------------------------------------------------------------- scene and contract

    def bodies(self) -> Sequence[Body]:
        """Return table, cube and goal marker."""
        return (
            Body(
                "table",
                "box",
                (0.35, 0.5, 0.02),
                position=(0.5, 0.0, -0.02),
                fixed=True,
                colour=(0.75, 0.7, 0.62, 1.0),
            ),
            Body("cube", "box", (CUBE_HALF,) * 3, mass=0.08, colour=(0.85, 0.2, 0.15, 1.0)),
            Body(
                "goal",
                "cylinder",
                (self.config.goal_radius_m, 0.001),
                fixed=True,
                visual_only=True,
                colour=(0.1, 0.7, 0.25, 0.8),
            ),
        )

    def sensors(self) -> Sequence[RangeScan]:
        """Return none: joints and poses are all that is seen."""
        return ()

    def contract(self) -> Contract:
        """Return what is observed and commanded."""
        return Contract(
            task=self.name,
            instruction=self.instruction,
            embodiment=self.robot.name,
            robot_sha256=self.robot.sha256,
            observation=self._observation_fields(),
            action=self._action_fields(),
            limits=self.robot.limits,
            workspace=dict(self.robot.workspace),
            control_rate_hz=self.config.control_rate_hz,
            chunk_size=self.config.chunk_size,
            num_executed=self.config.chunk_size,
            horizon=self.horizon,
            randomisation=typed.encode(self.randomisation),
        )

    def _observation_fields(self) -> tuple[ObservationField, ...]:
        gripper = self.robot.gripper
        assert gripper is not None

        def position(name: str, body: str, relative_to: str = "") -> ObservationField:
            source = Source("position", (body,), relative_to)
            return ObservationField(name, (3,), source, unit="m", frame=self.robot.base_frame)

        fields = [
            # Positions are relative, so that what is learned in one place holds in the next.
            ObservationField("tip_height", (1,), Source("height", (TIP,)), unit="m"),
            position("cube_from_tip", "cube", TIP),
            ObservationField("cube_yaw_from_tip", (2,), Source("yaw", ("cube",), TIP, 4)),
            position("goal_from_cube", "goal", "cube"),
            ObservationField(
                "gripper_position", (1,), Source("joint_position", (gripper.joint,)), unit="m"
            ),
            ObservationField("gripper_command", (1,), Source("gripper_command")),
            ObservationField("command_error", (3,), Source("command_error"), unit="m"),
        ]
        if self.config.action == "joint_delta":
            source = Source("joint_position", self.robot.arm_joints)
            size = len(self.robot.arm_joints)
            fields.append(ObservationField("joint_position", (size,), source, unit="rad"))
        return tuple(fields)

    def _action_fields(self) -> tuple[ActionField, ...]:
        gripper = self.robot.gripper
        assert gripper is not None
        frame, tip = self.robot.base_frame, self.robot.tip_frame
        if self.config.action == "cartesian_delta":
            arm = ActionField(
                "arm",
                "cartesian_delta",
                ("x", "y", "z", "yaw"),
                (*(self.config.step_m,) * 3, self.config.step_rad),
                unit="m, rad",
                frame=frame,
                tip=tip,
                controller="arm",
            )
        elif self.config.action == "joint_delta":
            names = self.robot.arm_joints
            scale = (self.config.step_rad,) * len(names)
            arm = ActionField(
                "arm",
                "joint_delta",
                names,
                scale,
                unit="rad",
                frame=frame,
                tip=tip,
                controller="arm",
            )
        else:
            raise ConfigurationError(
                f"task.action = '{self.config.action}'", expected="cartesian_delta | joint_delta"
            )
        return arm, ActionField(
            "gripper", "gripper", (gripper.joint,), (1.0,), controller="gripper"
        )

    # ---------------------------------------------------------------- initial states

    def sample(self, keys: Sequence[Key]) -> SceneState:
        """Draw cube and goal at least 12 cm apart on the table and the arm above them."""
        cube, goal, tip, yaw = (
            torch.empty(len(keys), n, dtype=torch.float64) for n in (7, 7, 3, 1)
        )
        for i, key in enumerate(keys):
            source = generator("pick_place/initial_state", key)
            centre = np.array([0.5, 0.0])
            half = np.array([0.11, 0.22])
            cube_xy = centre + source.uniform(-half, half)
            cube_yaw = source.uniform(-0.6, 0.6)
            goal_xy = centre + source.uniform(-half, half)
            while np.linalg.norm(goal_xy - cube_xy) < 0.12:
                goal_xy = centre + source.uniform(-half, half)
            cube[i] = _pose(cube_xy, CUBE_HALF, cube_yaw)
            goal[i] = _pose(goal_xy, 0.0, 0.0)
            tip[i] = torch.from_numpy(source.uniform([0.42, -0.12, 0.14], [0.58, 0.12, 0.26]))
            yaw[i] = source.uniform(-0.4, 0.4)
        joints = self.robot.home.repeat(len(keys), 1)
        arm = len(self.robot.arm_joints)
        joints[:, :arm] = solve_ik(
            self.robot.chain, tip, rotations.pointing_down(yaw[:, 0]), joints[:, :arm]
        )
        gripper = self.robot.gripper
        assert gripper is not None
        joints[:, arm] = gripper.open_position_m
        still = torch.zeros(len(keys), 6, dtype=torch.float64)
        return SceneState(
            self.robot.joint_names,
            joints,
            torch.zeros_like(joints),
            {"cube": cube, "goal": goal},
            {"cube": still},
        )

    # ---------------------------------------------------------------- verification

    def outcome(self, scene: SceneState) -> Outcome:
        """Verify that the cube is on the goal, at rest and released."""
        offset = scene.position("cube") - scene.position("goal")
        distance = torch.linalg.vector_norm(offset[:, :2], dim=-1)
        height = scene.position("cube")[:, 2]
        opening = scene.joint_position[:, self._gripper_column]
        success = (
            (distance < self.config.goal_radius_m)
            & (height < CUBE_HALF + 0.01)
            & (scene.speed("cube") < self.config.rest_speed_m_s)
            & (opening > CUBE_HALF + 0.005)
        )
        near = torch.clamp(1.0 - distance / 0.5, 0.0, 1.0)
        score = torch.where(success, 1.0, 0.9 * near).float()
        return Outcome(success, height < -0.05, score)

    def reward_terms(
        self, before: SceneState, after: SceneState, action: Tensor, outcome: Outcome
    ) -> Mapping[str, Tensor]:
        """Return the configured terms (N,): outcome is sparse, the others are shaping costs."""
        return reward_terms(
            self.reward_names,
            before,
            after,
            action,
            outcome,
            self._potential,
            self.config.control_rate_hz,
        )

    def _potential(self, scene: SceneState) -> Tensor:
        cube = scene.position("cube")
        to_goal = torch.linalg.vector_norm(cube - scene.position("goal"), dim=-1)
        to_cube = torch.linalg.vector_norm(self._tip(scene) - cube, dim=-1)
        potential: Tensor = -(to_goal + 0.5 * to_cube)
        return potential

    # ---------------------------------------------------------------- demonstrator

    def demonstrate(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the scripted action: travel, align, descend, grasp, lift, carry, lower, release.

        Every phase is recognised from the scene and the gripper's command, so the script can
        take over from any state.
        """
        action = self._demonstrate_tip(scene, controller_state)
        if self.config.action == "cartesian_delta":
            return action
        # The joint motion that the cartesian controller would have made of it.
        reached = self._cartesian_controller.step(controller_state, action)
        arm = len(self.robot.arm_joints)
        delta = (reached["target"] - controller_state["target"])[:, :arm] / self.config.step_rad
        return torch.cat([delta.clamp(-1.0, 1.0), action[:, 4:]], dim=-1)

    def _demonstrate_tip(
        self, scene: SceneState, controller_state: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the script's tip motion and gripper (N, 5)."""
        cube, goal, tip = scene.position("cube"), scene.position("goal"), self._tip(scene)
        opening = scene.joint_position[:, self._gripper_column]
        closed = controller_state["gripper"][:, 0] < 0.5
        to_cube = torch.linalg.vector_norm((cube - tip)[:, :2], dim=-1)
        cube_to_goal = torch.linalg.vector_norm((cube - goal)[:, :2], dim=-1)
        beside_cube = (to_cube < 0.012) & ((tip - cube)[:, 2].abs() < 0.012)
        gripping = closed & beside_cube.logical_or((cube - tip).norm(dim=-1) < 0.025)
        firm = gripping & (opening < CUBE_HALF + 0.002)
        lowered = tip[:, 2] < HOVER_HEIGHT - 0.04
        over_goal = cube_to_goal < torch.where(lowered, 0.02, 0.012)
        down = cube[:, 2] < CUBE_HALF + 0.004

        target = torch.cat([cube[:, :2], torch.full_like(cube[:, 2:], HOVER_HEIGHT)], dim=-1)
        target[:, 2] = torch.where(to_cube < 0.012, CUBE_HALF, target[:, 2])
        target[:, 2] = torch.where((to_cube < 0.03) & (tip[:, 2] < 0.06), CUBE_HALF, target[:, 2])
        target = torch.where(gripping.unsqueeze(1), tip, target)
        carry = goal + (tip - cube) * torch.tensor([1.0, 1.0, 0.0])
        bottom = CUBE_HALF + 0.001 + (tip - cube)[:, 2]
        carry[:, 2] = torch.where(over_goal, bottom, HOVER_HEIGHT - 0.02)
        low = (cube[:, 2] < 0.045) & (cube_to_goal > 0.03)
        rise = torch.cat([tip[:, :2], carry[:, 2:]], dim=-1)
        carry = torch.where(low.unsqueeze(1), rise, carry)
        target = torch.where(firm.unsqueeze(1), carry, target)

        at_rest = (tip - controller_state["tip"]).norm(dim=-1) < 0.012
        release = firm & over_goal & down & at_rest
        close = (gripping & ~release) | (~closed & beside_cube & at_rest & (cube_to_goal > 0.02))
        delta = (target - controller_state["tip"]) / self.config.step_m
        turn = self._turn_to_cube(scene, controller_state) * (~gripping)
        turn = turn / self.config.step_rad
        gripper = torch.where(close, -1.0, 1.0).to(delta.dtype)
        action = torch.cat([delta, turn.unsqueeze(1), gripper.unsqueeze(1)], dim=-1)
        return action.clamp(-1.0, 1.0)

    def _turn_to_cube(self, scene: SceneState, controller_state: Mapping[str, Tensor]) -> Tensor:
        """Return the smallest turn that aligns the fingers with a face of the cube, rad."""
        error = rotations.yaw_of_quaternion(scene.quaternion("cube"))
        error = error - controller_state["yaw"][:, 0]
        quarter = torch.pi / 2
        return error - quarter * torch.round(error / quarter)

    def _tip(self, scene: SceneState) -> Tensor:
        return self.robot.chain.forward(scene.joints(self.robot.arm_joints))[0]

    @functools.cached_property
    def _cartesian_controller(self) -> ActionController:
        config = dataclasses.replace(self.config, action="cartesian_delta")
        return make_controller(PickPlace(config).contract(), self.robot)

    @functools.cached_property
    def _gripper_column(self) -> int:
        return len(self.robot.arm_joints)


def _pose(xy: NDArray[np.float64], z: float, yaw: float) -> Tensor:
    half = yaw / 2.0
    return torch.tensor([*xy, z, 0.0, 0.0, np.sin(half), np.cos(half)], dtype=torch.float64)
