"""Contracts and robots that the controller tests share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from grpo_ros.contract import ActionField, Contract
from grpo_ros.robots import Robot, load_robot

CARTESIAN = ActionField("arm", "cartesian_delta", ("x", "y", "z", "yaw"), (0.03, 0.03, 0.03, 0.15))
GRIPPER = ActionField("gripper", "gripper", ("fr3_finger_joint1",), (1.0,))


@pytest.fixture(scope="session")
def robot() -> Robot:
    return load_robot("franka_fr3")


@pytest.fixture(scope="session")
def make_contract(robot: Robot) -> Callable[..., Contract]:
    """Return a function that makes a contract of action fields and changed settings."""
    base = Contract(
        task="test",
        instruction="",
        embodiment=robot.name,
        robot_sha256=robot.sha256,
        action=(CARTESIAN, GRIPPER),
        limits=robot.limits,
        workspace=robot.workspace,
        control_rate_hz=20.0,
    )

    def make(*action: ActionField, **settings: Any) -> Contract:
        return dataclasses.replace(base, action=action or base.action, **settings)

    return make
