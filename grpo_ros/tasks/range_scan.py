"""RangeScan: a planar laser, cast against the upright cylinders of a scene."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from grpo_ros.elementary import Array, sine_cosine
from grpo_ros.errors import ConfigurationError
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.scene_state import SceneState


@dataclasses.dataclass(frozen=True)
class RangeScan:
    """A laser whose beams go all around; beam i points at yaw + 2 pi i / num_beams.

    Attributes:
        name: of the sensor, as observation fields refer to it.
        joints: x, y and yaw joints of what carries it.
        bodies: names of the cylinders that it sees.
        num_beams: how many beams.
        range_m: what a beam reads that meets nothing so far, m.
    """

    name: str
    joints: tuple[str, str, str]
    bodies: tuple[str, ...]
    num_beams: int = 16
    range_m: float = 2.0

    def read(self, scene: SceneState, bodies: Sequence[Body]) -> Tensor:
        """Return the ranges (N, num_beams) float64, m, from the sensor's centre.

        With the offset o of a cylinder's axis and the beam's direction d, the beam enters a
        cylinder of radius r at o.d - sqrt(r^2 - (o x d)^2), if that is real and not behind.
        Row i depends on row i of the scene alone, bit for bit.
        """
        radii = {body.name: body.size[0] for body in bodies if body.shape == "cylinder"}
        missing = [name for name in self.bodies if name not in radii]
        if missing:
            raise ConfigurationError(
                f"sensor '{self.name}' looks at '{missing[0]}'", expected="an upright cylinder"
            )
        x, y, yaw = (column.numpy() for column in scene.joints(self.joints).unbind(-1))
        angles = yaw[None] + (2.0 * math.pi / self.num_beams) * np.arange(self.num_beams)[:, None]
        sine, cosine = sine_cosine(angles)
        nearest: Array = np.full_like(sine, self.range_m)
        for name in self.bodies:
            position = scene.position(name).numpy()
            ahead_x, ahead_y = position[:, 0] - x, position[:, 1] - y
            along = ahead_x * cosine + ahead_y * sine
            across = ahead_x * sine - ahead_y * cosine
            inside = radii[name] ** 2 - across * across
            enters = along - np.sqrt(np.maximum(inside, 0.0))
            is_met = (inside > 0.0) & (along > 0.0)
            nearest = np.where(is_met, np.minimum(nearest, np.maximum(enters, 0.0)), nearest)
        return torch.from_numpy(np.ascontiguousarray(nearest.T))


def sense(scene: SceneState, sensors: Sequence[RangeScan], bodies: Sequence[Body]) -> SceneState:
    """Return the scene with the readings of all sensors."""
    if not sensors:
        return scene
    readings = {sensor.name: sensor.read(scene, bodies) for sensor in sensors}
    return dataclasses.replace(scene, readings={**scene.readings, **readings})
