"""Transforms of a robot's links from its joint positions, as robot_state_publisher gives them."""

from __future__ import annotations

import math
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
        self._moving = [(_Link(joint), joint) for joint in joints if joint.is_moving]
        self._fixed = [_Link(joint) for joint in joints if not joint.is_moving]

    def fixed(self) -> list[Transform]:
        """Return the transforms that never change."""
        return [link.at(0.0) for link in self._fixed]

    def moving(self, names: Sequence[str], position: Array) -> list[Transform]:
        """Return the transforms of the moving joints; those that mimic follow their driver.

        Args:
            names: of the joints.
            position: (J,) rad or m; joints that are not named stand at 0.
        """
        known: Mapping[str, float] = dict(zip(names, position.tolist(), strict=True))
        return [
            link.at(joint.multiplier * known.get(joint.mimic or joint.name, 0.0) + joint.offset)
            for link, joint in self._moving
        ]


def quaternion_of(rotation: Array) -> Array:
    """Return the quaternion x, y, z, w of a (3, 3) rotation."""
    quaternion: Array = rotations.matrix_to_quaternion(torch.from_numpy(rotation)[None])[0].numpy()
    return quaternion


class _Link:
    """A joint's transform; in plain numbers, which are faster than small arrays."""

    def __init__(self, joint: UrdfJoint) -> None:
        self._parent, self._child = joint.parent, joint.child
        self._shift = tuple(joint.translation.tolist())
        turn = rotations.matrix_to_quaternion(torch.from_numpy(joint.rotation)[None])[0]
        self._turn = tuple(turn.tolist())
        self._is_turning = joint.is_moving and joint.kind != "prismatic"
        axis = joint.axis if self._is_turning else joint.rotation @ joint.axis
        self._axis = tuple(axis.tolist())

    def at(self, value: float) -> Transform:
        """Return the transform at a joint's position, rad or m."""
        (x, y, z), (a, b, c), (i, j, k, w) = self._shift, self._axis, self._turn
        if not self._is_turning:
            x, y, z = x + a * value, y + b * value, z + c * value
            return self._parent, self._child, [x, y, z, i, j, k, w]
        sine, cosine = math.sin(value / 2.0), math.cos(value / 2.0)
        a, b, c = a * sine, b * sine, c * sine
        return (
            self._parent,
            self._child,
            [
                x,
                y,
                z,
                w * a + cosine * i + j * c - k * b,
                w * b + cosine * j + k * a - i * c,
                w * c + cosine * k + i * b - j * a,
                w * cosine - i * a - j * b - k * c,
            ],
        )
