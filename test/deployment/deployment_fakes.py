"""A small contract, and a controller that adds actions to joints: no kinematics, no simulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from grpo_ros.contract import ActionField, Contract, ObservationField, Source
from grpo_ros.robots.robot import Robot, load_robot


def _without_driver(robot: Robot) -> Robot:
    """Return a robot of which nobody reports external torques."""
    safety = dataclasses.replace(robot.safety, external_torque=None)
    return dataclasses.replace(
        robot, description=dataclasses.replace(robot.description, safety=safety)
    )


ROBOT: Robot = _without_driver(load_robot("franka_fr3"))
ARM, FINGER = ROBOT.arm_joints, "fr3_finger_joint1"
MS = 1_000_000
PERIOD_NS = 50 * MS


def make_contract(**changes: object) -> Contract:
    """Return a contract with joints, a body relative to the tip, and the last action."""
    contract = Contract(
        task="reach",
        instruction="",
        embodiment=ROBOT.name,
        robot_sha256=ROBOT.sha256,
        observation=(
            ObservationField("joints", (7,), Source("joint_position", ARM)),
            ObservationField("speed", (1,), Source("joint_velocity", ARM[:1])),
            ObservationField("cube", (3,), Source("position", ("cube",), "tip")),
            ObservationField("last", (8,), Source("last_action")),
        ),
        action=(
            ActionField("arm", "joint_delta", ARM, (0.02,) * 7),
            ActionField("gripper", "gripper", (FINGER,), (1.0,)),
        ),
        limits=ROBOT.limits,
        chunk_size=4,
        num_executed=2,
        horizon=50,
    )
    return dataclasses.replace(contract, **changes)


class AddingController:
    """target += 0.02 * action, gripper = action >= 0; records how often it was reset."""

    def __init__(self) -> None:
        self.num_resets = 0

    def reset(self, joint_position: Tensor) -> Mapping[str, Tensor]:
        """Command what is measured."""
        self.num_resets += 1
        return {"target": joint_position.clone(), "gripper": torch.ones(1, 1).double()}

    def step(self, state: Mapping[str, Tensor], action: Tensor) -> Mapping[str, Tensor]:
        """Add the action."""
        target = state["target"].clone()
        target[:, :7] += 0.02 * action[:, :7]
        return {"target": target, "gripper": (action[:, 7:] >= 0).double()}

    def twist(self, state: Mapping[str, Tensor], action: Tensor) -> None:
        """Command no base."""


def home() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the home position of all commanded joints (8,)."""
    return ROBOT.home.numpy().copy()
