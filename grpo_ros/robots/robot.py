"""A robot: one URDF, one YAML for what a URDF cannot say, and what follows from both."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import JointLimits
from grpo_ros.errors import RobotError, nearest
from grpo_ros.overrides import load_yaml
from grpo_ros.robots.checks import check_description, position_range
from grpo_ros.robots.description import (
    DESCRIPTION_FILE,
    ArmCommand,
    ExternalTorque,
    Gripper,
    Interfaces,
    JointDescription,
    RobotDescription,
    RobotMode,
    Safety,
)
from grpo_ros.robots.driver_gripper import DriverGripper
from grpo_ros.robots.kinematics import SerialChain
from grpo_ros.robots.urdf import Urdf, parse_urdf

__all__ = [
    "DESCRIPTION_FILE",
    "ROBOTS_DIRECTORY",
    "ArmCommand",
    "ExternalTorque",
    "Gripper",
    "Interfaces",
    "JointDescription",
    "Robot",
    "RobotDescription",
    "RobotMode",
    "Safety",
    "known_robots",
    "load_robot",
]

ROBOTS_DIRECTORY = Path(__file__).parent


@dataclasses.dataclass(frozen=True, eq=False)
class Robot:
    """A robot arm, perhaps with a gripper; J commanded joints: the arm's, then the gripper's.

    Attributes:
        name: of the robot.
        urdf_path: of the URDF file.
        urdf: its text.
        description: the YAML.
        sha256: hash of the URDF and of what the YAML says about the mechanism; names of topics,
            the driver and limits that hold only when deployed may change without another policy.
        arm_joints: A names, from base to tip.
        gripper: None if there is none.
        limits: of the commanded joints, in their order.
        home: (J,) float64, rad or m; gripper open.
        driver_gripper: how the driver counts the gripper's position; None if there is none.
        gripper_unit: of the driver joint: m where it slides, rad where it turns; empty if none.
        stiffness: (J,) float64 servo gains for simulators, N m/rad or N/m.
        damping: (J,) float64, N m s/rad or N s/m.
        armature: (J,) float64, inertia that the drives add to the joints, kg m^2 or kg.
        chain: kinematics from base to tip.
    """

    name: str
    urdf_path: Path
    urdf: str
    description: RobotDescription
    sha256: str
    arm_joints: tuple[str, ...]
    gripper: Gripper | None
    limits: tuple[JointLimits, ...]
    home: Tensor
    driver_gripper: DriverGripper | None
    gripper_unit: str
    stiffness: Tensor
    damping: Tensor
    armature: Tensor
    chain: SerialChain

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the commanded joints: the arm's, then the gripper's driver."""
        return tuple(limit.name for limit in self.limits)

    @property
    def base_frame(self) -> str:
        """Link that is fixed to the world."""
        return self.description.base_frame

    @property
    def tip_frame(self) -> str:
        """Link that is moved."""
        return self.description.tip_frame

    @property
    def interfaces(self) -> Interfaces:
        """Relative names of the standard ROS interfaces."""
        return self.description.interfaces

    @property
    def safety(self) -> Safety:
        """Limits of the deployed robot."""
        return self.description.safety

    @property
    def workspace(self) -> Mapping[str, tuple[float, float]]:
        """Bounds x, y, z of the tip in the base frame, in m."""
        return self.description.workspace


def known_robots() -> tuple[str, ...]:
    """Return the names of the robots that this package describes."""
    files = ROBOTS_DIRECTORY.glob(f"*/{DESCRIPTION_FILE}")
    return tuple(sorted(file.parent.name for file in files))


def load_robot(name_or_path: str | Path) -> Robot:
    """Return a robot of this package by name, or one from a folder with a robot.yaml.

    Raises:
        RobotError: unknown name, or a file that is missing or wrong; names the file and the key.
    """
    if str(name_or_path) in known_robots():
        folder = ROBOTS_DIRECTORY / str(name_or_path)
    else:
        folder = Path(name_or_path)
        if folder.name == DESCRIPTION_FILE:
            folder = folder.parent
        if not (folder / DESCRIPTION_FILE).is_file():
            raise RobotError(
                f"no robot '{name_or_path}'",
                expected=f"a robot's name, or a folder that holds {DESCRIPTION_FILE}",
                remedy=nearest(str(name_or_path), known_robots()),
            )
    return _load(folder.resolve())


def placed(name_or_path: str) -> str:
    """Return a robot's name as it is, and a robot's folder so that it is found from anywhere."""
    path = Path(name_or_path)
    is_folder = name_or_path not in known_robots() and (path / DESCRIPTION_FILE).is_file()
    return str(path.resolve()) if is_folder else name_or_path


@functools.lru_cache(maxsize=16)
def _cached(folder: Path, yaml_bytes: bytes, urdf_bytes: bytes) -> Robot:
    description = _describe(folder / DESCRIPTION_FILE, yaml_bytes)
    urdf_path = folder / description.urdf
    text = _text(urdf_path, urdf_bytes)
    urdf = parse_urdf(text, urdf_path.name)
    chain = SerialChain.from_urdf(urdf, description.base_frame, description.tip_frame)
    check_description(description, urdf, chain)
    gripper = description.gripper
    driven: list[JointDescription | Gripper] = [description.joints[n] for n in chain.joint_names]
    home = [description.joints[name].home for name in chain.joint_names]
    if gripper is not None:
        driven.append(gripper)
        home.append(gripper.open_position_m)
    return Robot(
        name=description.name,
        urdf_path=urdf_path,
        urdf=text,
        description=description,
        sha256=_digest(description, urdf_bytes),
        arm_joints=chain.joint_names,
        gripper=gripper,
        limits=_limits(description, urdf, chain),
        home=torch.tensor(home, dtype=torch.float64),
        driver_gripper=_driver_gripper(description),
        gripper_unit=_gripper_unit(gripper, urdf),
        stiffness=torch.tensor([drive.stiffness for drive in driven], dtype=torch.float64),
        damping=torch.tensor([drive.damping for drive in driven], dtype=torch.float64),
        armature=torch.tensor([drive.armature for drive in driven], dtype=torch.float64),
        chain=chain,
    )


def _driver_gripper(description: RobotDescription) -> DriverGripper | None:
    gripper = description.gripper
    return None if gripper is None else DriverGripper.of(gripper, description.interfaces)


def _gripper_unit(gripper: Gripper | None, urdf: Urdf) -> str:
    if gripper is None:
        return ""
    return "m" if urdf.joint(gripper.joint).kind == "prismatic" else "rad"


def _load(folder: Path) -> Robot:
    yaml_bytes = _read(folder / DESCRIPTION_FILE)
    description = _describe(folder / DESCRIPTION_FILE, yaml_bytes)
    return _cached(folder, yaml_bytes, _read(folder / description.urdf))


def _digest(description: RobotDescription, urdf_bytes: bytes) -> str:
    mechanism = typed.encode(description)
    for name in ("interfaces", "safety", "driver_package"):
        del mechanism[name]
    text = json.dumps(mechanism, sort_keys=True).encode()
    return hashlib.sha256(urdf_bytes + b"\0" + text).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise RobotError(
            f"{path} cannot be read ({problem.strerror})", expected="a readable file"
        ) from problem


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise RobotError(f"{path.name}: not UTF-8 text", expected="a text file") from problem


def _describe(path: Path, data: bytes) -> RobotDescription:
    try:
        values: Any = load_yaml(_text(path, data))
    except yaml.YAMLError as problem:
        raise RobotError(f"{path.name}: not YAML ({problem})", expected="a mapping") from problem
    if not isinstance(values, Mapping):
        raise RobotError(f"{path.name}: holds {values!r}", expected="a mapping of settings")
    return typed.decode(RobotDescription, values, path.name, RobotError)


def _limits(
    description: RobotDescription, urdf: Urdf, chain: SerialChain
) -> tuple[JointLimits, ...]:
    limits = []
    for name in chain.joint_names:
        joint, more = urdf.joint(name), description.joints[name]
        velocity = joint.velocity * description.velocity_scale
        limits.append(
            JointLimits(
                name,
                *position_range(joint, description.position_margin),
                velocity,
                more.acceleration,
                more.jerk,
                joint.effort,
            )
        )
    if description.gripper is not None:
        gripper, joint = description.gripper, urdf.joint(description.gripper.joint)
        limits.append(
            JointLimits(
                joint.name,
                *position_range(joint),
                joint.velocity,
                gripper.acceleration,
                gripper.jerk,
                gripper.max_effort_n,
            )
        )
    return tuple(limits)
