"""Transforms of a robot's links from its joint positions, as robot_state_publisher gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from grpo_ros import rotations
from grpo_ros.robots.urdf import UrdfJoint, parse_urdf

Array = npt.NDArray[np.float64]
Transform = tuple[str, str, list[float]]
"""Parent, child, and x, y, z in m with x, y, z, w."""


class LinkTransforms:
    """Parent-to-child transforms of all joints of a robot.

    Args:
        urdf: its text. file: that it came from, for messages.

    Raises:
        RobotError: it cannot be read.
    """

    def __init__(self, urdf: str, file: str) -> None:
        joints = parse_urdf(urdf, file).joints
        self._moving = [joint for joint in joints if joint.is_moving]
        self._turns = {joint.name: quaternion_of(joint.rotation) for joint in joints}
        self._fixed = [joint for joint in joints if not joint.is_moving]

    def fixed(self) -> list[Transform]:
        """Return the transforms that never change."""
        return [self._at(joint, 0.0) for joint in self._fixed]

    def moving(self, names: Sequence[str], position: Array) -> list[Transform]:
        """Return the transforms of the moving joints; those that mimic follow their driver.

        Args:
            names: of the joints.
            position: (J,) rad or m; joints that are not named stand at 0.
        """
        known: Mapping[str, float] = dict(zip(names, position.tolist(), strict=True))
        return [
            self._at(joint, known.get(joint.mimic or joint.name, 0.0)) for joint in self._moving
        ]

    def _at(self, joint: UrdfJoint, value: float) -> Transform:
        shift, turn = joint.translation, self._turns[joint.name]
        if joint.kind == "prismatic":
            shift = shift + joint.rotation @ joint.axis * value
        elif joint.is_moving:
            half = value / 2.0
            turn = _product(turn, np.append(joint.axis * np.sin(half), np.cos(half)))
        return joint.parent, joint.child, [*shift.tolist(), *turn.tolist()]


def quaternion_of(rotation: Array) -> Array:
    """Return the quaternion x, y, z, w of a (3, 3) rotation."""
    quaternion: Array = rotations.matrix_to_quaternion(torch.from_numpy(rotation)[None])[0].numpy()
    return quaternion


def _product(left: Array, right: Array) -> Array:
    """Return the Hamilton product of two quaternions x, y, z, w."""
    vector = left[3] * right[:3] + right[3] * left[:3] + np.cross(left[:3], right[:3])
    return np.append(vector, left[3] * right[3] - left[:3] @ right[:3])
