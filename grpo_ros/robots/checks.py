"""Whether a robot.yaml and its URDF agree, and mean one arm to kinematics and simulators."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from grpo_ros.elementary import Array
from grpo_ros.errors import RobotError
from grpo_ros.robots.description import DESCRIPTION_FILE, Gripper, RobotDescription
from grpo_ros.robots.kinematics import SerialChain
from grpo_ros.robots.urdf import Urdf, UrdfJoint, no_limit

UNBOUNDED_RAD = 1000.0
"""How far a continuous joint is taken to turn either way: 159 turns, which no run comes near.

A bound that is a number keeps limits comparable, and the contract plain JSON.
"""

SAME = 1e-9
"""Transforms are equal whose entries differ by no more than this, in m for positions."""


def position_range(joint: UrdfJoint, margin: float = 0.0) -> tuple[float, float]:
    """Return the lowest and highest position of a joint, less a margin, rad or m; finite."""
    if joint.kind == "continuous":
        return -UNBOUNDED_RAD, UNBOUNDED_RAD
    return joint.lower + margin, joint.upper - margin


def check_description(description: RobotDescription, urdf: Urdf, chain: SerialChain) -> None:
    """Raise RobotError where the YAML and the URDF disagree, or a simulator would differ."""
    for name in description.joints:
        urdf.joint(name)
    if set(description.joints) != set(chain.joint_names):
        raise RobotError(
            f"{DESCRIPTION_FILE}: joints are {sorted(description.joints)}",
            expected=f"{list(chain.joint_names)}, those that move between "
            f"'{description.base_frame}' and '{description.tip_frame}' in {urdf.file}",
        )
    gripper = description.gripper
    driven = [*description.joints, *([] if gripper is None else [gripper.joint])]
    for name in driven:
        if not math.isfinite(urdf.joint(name).velocity):
            raise no_limit(urdf.file, f"joint '{name}'")
    _check_base(urdf, description.base_frame)
    for name, joint in description.joints.items():
        _check_within(urdf, name, "home", joint.home, description.position_margin)
        for key in ("acceleration", "jerk", "stiffness", "damping", "armature"):
            _check_finite(f"joints.{name}.{key}", getattr(joint, key))
    for axis, (low, high) in description.workspace.items():
        if axis not in ("x", "y", "z") or not low < high:
            raise RobotError(
                f"{DESCRIPTION_FILE}: workspace.{axis} = [{low}, {high}]",
                expected="x, y or z with [lower, upper]",
            )
    if gripper is not None:
        _check_gripper(urdf, gripper)
    _check_followers(urdf, driven, () if gripper is None else gripper.mimic_joints)


def _check_gripper(urdf: Urdf, gripper: Gripper) -> None:
    for name in gripper.mimic_joints:
        _check_mimic(urdf, name, gripper.joint)
    _check_within(urdf, gripper.joint, "gripper.open_position_m", gripper.open_position_m)
    _check_within(urdf, gripper.joint, "gripper.closed_position_m", gripper.closed_position_m)
    if gripper.open_position_m == gripper.closed_position_m:
        raise RobotError(
            f"{DESCRIPTION_FILE}: the gripper's open and closed positions are equal",
            expected="two positions",
        )
    for key in ("max_effort_n", "acceleration", "jerk", "stiffness", "damping", "armature"):
        _check_finite(f"gripper.{key}", getattr(gripper, key))


def _check_base(urdf: Urdf, base: str) -> None:
    """Raise RobotError unless the base frame lies in the URDF's root: simulators fix the root."""
    joints = urdf.chain(urdf.root, base)
    position: Array = np.zeros(3)
    rotation: Array = np.eye(3)
    for joint in joints:
        position = position + rotation @ joint.translation
        rotation = rotation @ joint.rotation
    moving = [joint.name for joint in joints if joint.is_moving]
    if moving or np.abs(position).max() > SAME or np.abs(rotation - np.eye(3)).max() > SAME:
        where = f"moves by {moving}" if moving else f"is at {position.tolist()}, or turned,"
        raise RobotError(
            f"{DESCRIPTION_FILE}: base_frame '{base}' {where} in '{urdf.root}', the root link of "
            f"{urdf.file}",
            expected="the root link, or one that is fixed to it without an offset: a simulator "
            "fixes the root to the world, and poses are seen in the base frame",
            remedy=f"set base_frame to '{urdf.root}', or remove the mounting joint from the URDF",
        )


def _check_followers(urdf: Urdf, driven: Sequence[str], followers: Sequence[str]) -> None:
    """Raise RobotError where a joint is driven and follows another, or moves and is neither."""
    for joint in urdf.joints:
        if joint.name in driven and joint.mimic:
            raise RobotError(
                f"{urdf.file}: joint '{joint.name}' is commanded, and mimics '{joint.mimic}'",
                expected="joints of the arm, and the gripper's driver, that follow no other",
                remedy="remove its <mimic>, or make it fixed",
            )
        is_free_wheel = joint.kind == "continuous" and math.isinf(joint.velocity)
        if joint.is_moving and not is_free_wheel and joint.name not in (*driven, *followers):
            raise RobotError(
                f"{urdf.file}: joint '{joint.name}' moves, and nothing commands it",
                expected="a joint between base_frame and tip_frame, gripper.joint, one of "
                "gripper.mimic_joints, or a wheel: continuous, without <limit>",
                remedy='make it fixed: type="fixed"',
            )


def _check_mimic(urdf: Urdf, name: str, driver: str) -> None:
    """Raise RobotError unless a joint stands where the gripper's driver does."""
    joint = urdf.joint(name)
    if joint.mimic != driver:
        raise RobotError(
            f"{DESCRIPTION_FILE}: gripper.mimic_joints has '{name}'",
            expected=f'a joint with <mimic joint="{driver}"/> in {urdf.file}',
        )
    if joint.multiplier != 1.0 or joint.offset != 0.0:
        raise RobotError(
            f"{urdf.file}: joint '{name}' mimics '{driver}' with multiplier {joint.multiplier:g} "
            f"and offset {joint.offset:g}",
            expected="multiplier 1 and offset 0, with which simulators tie a gripper's joints",
            remedy="multiplier -1: reverse its <axis> and limits; an offset: put it into its "
            "<origin> and limits; else leave it out of gripper.mimic_joints and make it fixed",
        )


def _check_within(urdf: Urdf, name: str, key: str, value: float, margin: float = 0.0) -> None:
    lower, upper = position_range(urdf.joint(name), margin)
    if not lower <= value <= upper:
        kept = f", less position_margin {margin}" if margin else ""
        raise RobotError(
            f"{DESCRIPTION_FILE}: {key} of '{name}' = {value}",
            expected=f"within [{lower}, {upper}] of {urdf.file}{kept}",
        )


def _check_finite(key: str, value: float) -> None:
    if not math.isfinite(value):
        raise RobotError(f"{DESCRIPTION_FILE}: {key} = {value}", expected="a finite number")
