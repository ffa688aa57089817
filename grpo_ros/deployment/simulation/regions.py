"""Regions of space, and which bodies overlap them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from grpo_ros import rotations
from grpo_ros.deployment.simulation.primitives import half_extents
from grpo_ros.elementary import Array
from grpo_ros.tasks.base import Body


@dataclasses.dataclass(frozen=True)
class Sphere:
    """A ball.

    Attributes:
        centre: (3,) m. radius: m.
    """

    centre: Array
    radius: float

    def overlaps(self, body: Body, pose: Array) -> bool:
        """Return whether a body at a pose (7,) reaches into the ball; exact for every shape."""
        x, y, z = np.abs(_matrix(pose).T @ (self.centre - pose[:3]))
        if body.shape == "sphere":
            return math.hypot(x, y, z) <= self.radius + body.size[0]
        if body.shape == "cylinder":
            across = max(math.hypot(x, y) - body.size[0], 0.0)
            return math.hypot(across, max(z - body.size[1], 0.0)) <= self.radius
        outside = np.maximum(np.array([x, y, z]) - half_extents(body), 0.0)
        return bool(np.linalg.norm(outside) <= self.radius)


@dataclasses.dataclass(frozen=True)
class Box:
    """A box along the axes of the world.

    Attributes:
        low, high: (3,) m.
    """

    low: Array
    high: Array

    def overlaps(self, body: Body, pose: Array) -> bool:
        """Return whether a body at a pose (7,) reaches into the box; a cylinder by its own box.

        Two boxes are apart if and only if they are along a face normal of one of them or along
        the product of an edge of each (Gottschalk, Lin, Manocha 1996).
        """
        half, centre = 0.5 * (self.high - self.low), 0.5 * (self.high + self.low)
        if body.shape == "sphere":
            outside = np.maximum(np.abs(pose[:3] - centre) - half, 0.0)
            return bool(np.linalg.norm(outside) <= body.size[0])
        axes = _matrix(pose)
        products = np.cross(np.eye(3)[:, None], axes.T[None]).reshape(-1, 3)
        directions = np.concatenate([np.eye(3), axes.T, products])
        reach = np.abs(directions) @ half + np.abs(directions @ axes) @ half_extents(body)
        return bool((np.abs(directions @ (pose[:3] - centre)) <= reach + 1e-12).all())


Region = Sphere | Box


def _matrix(pose: Array) -> Array:
    matrix: Array = rotations.quaternion_to_matrix(torch.from_numpy(pose[3:])).numpy()
    return matrix
