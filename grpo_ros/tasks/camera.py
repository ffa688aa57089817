"""Cameras that stand in a scene, engine-neutral."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from grpo_ros import rotations
from grpo_ros.tasks.base import Body

OVERVIEW, TOP = "overview", "top"


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole camera that does not move.

    Attributes:
        name: of the camera.
        eye: where it is in the robot's base frame, m.
        target: the point that it looks at, m; never straight above or below the eye.
        field_of_view: vertical, rad.
        width, height: of images, pixels.
    """

    name: str
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view: float = math.radians(50.0)
    width: int = 240
    height: int = 180

    @property
    def axes(self) -> NDArray[np.float64]:
        """Rotation matrix (3, 3): columns right, up, and backward, against the view."""
        backward = np.array(self.eye) - np.array(self.target)
        backward /= np.linalg.norm(backward)
        right = np.cross([0.0, 0.0, 1.0], backward)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward], axis=1)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Orientation of `axes`: x, y, z, w."""
        return _quaternion(self.axes)

    @property
    def optical_quaternion(self) -> tuple[float, float, float, float]:
        """Orientation of the optical frame, x right, y down, z ahead (REP 103): x, y, z, w."""
        return _quaternion(self.axes * np.array([1.0, -1.0, -1.0]))

    @property
    def intrinsics(self) -> NDArray[np.float64]:
        """Matrix K (3, 3) from the optical frame to pixels.

        K = [[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]] with
        f = height / (2 tan(field_of_view / 2)). Pixel (0, 0) has its centre at the origin, as
        in sensor_msgs/CameraInfo and OpenCV; pixels are square.
        """
        focal = self.height / (2.0 * math.tan(self.field_of_view / 2.0))
        middle = (self.width - 1) / 2.0, (self.height - 1) / 2.0
        return np.array([[focal, 0.0, middle[0]], [0.0, focal, middle[1]], [0.0, 0.0, 1.0]])


def _quaternion(axes: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x, y, z, w = rotations.matrix_to_quaternion(torch.from_numpy(axes)).tolist()
    return x, y, z, w


def ground(bodies: Sequence[Body]) -> tuple[tuple[float, float, float], float]:
    """Return centre and extent (m) of the widest static body: table or floor."""
    widest = max(
        (body for body in bodies if body.motion == "static"),
        key=lambda body: max(body.size),
        default=Body("none", "box", (0.5, 0.5, 0.02)),
    )
    return widest.position, 2.0 * max(widest.size)


def overview(bodies: Sequence[Body], width: int = 240, height: int = 180) -> Camera:
    """Return a camera that sees table or floor from its corner."""
    (x, y, z), size = ground(bodies)
    eye = (x + 0.85 * size, y - 0.85 * size, z + 0.77 * size)
    target = (x - 0.12 * size, y, z + 0.26 * size)
    return Camera(OVERVIEW, eye, target, width=width, height=height)


def top(bodies: Sequence[Body], width: int = 240, height: int = 180) -> Camera:
    """Return a camera that looks steeply down on the middle of the table, from opposite the arm.

    A place on the table is a place in its image: 0.54 of the table's longer side is the image's
    height, up is towards the arm, and a hand hides little but what is behind it.
    """
    (x, y, z), size = ground(bodies)
    eye = (x + 0.25 * size, y, z + 0.8 * size)
    return Camera(TOP, eye, (x, y, z), math.radians(36.0), width, height)
