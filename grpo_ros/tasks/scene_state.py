"""SceneState: what a task sees of a scene, the same in every engine and on a real robot."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros.errors import nearest


@dataclasses.dataclass(frozen=True)
class SceneState:
    """Named joints and bodies of N scenes. Outcomes, rewards and demonstrators read nothing else.

    Positions are metres, angles radians, quaternions (x, y, z, w), all in the robot's base frame.

    Attributes:
        joint_names: J names, in the order of the columns below.
        joint_position: (N, J) rad or m.
        joint_velocity: (N, J) rad/s or m/s.
        poses: name -> (N, 7) position and quaternion of a body or frame (objects, goal, tip).
        velocities: name -> (N, 6) linear and angular velocity of the body's origin, m/s and
            rad/s, along the axes of the base frame; absent where nothing measures it.
        readings: sensor -> (N, ...) what it measured; absent where nothing was sensed.
    """

    joint_names: tuple[str, ...]
    joint_position: Tensor
    joint_velocity: Tensor
    poses: Mapping[str, Tensor]
    velocities: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    readings: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    @property
    def num_envs(self) -> int:
        """N."""
        return int(self.joint_position.shape[0])

    def position(self, name: str) -> Tensor:
        """Return the position (N, 3) of a named body, in metres."""
        return self._pose(name)[:, :3]

    def quaternion(self, name: str) -> Tensor:
        """Return the orientation (N, 4) of a named body as x, y, z, w."""
        return self._pose(name)[:, 3:]

    def speed(self, name: str) -> Tensor:
        """Return the linear speed (N,) of a named body, in m/s."""
        speed: Tensor = torch.linalg.vector_norm(self.velocities[name][:, :3], dim=-1)
        return speed

    def joints(self, names: Sequence[str]) -> Tensor:
        """Return the positions (N, len(names)) of the named joints, in that order."""
        return self.joint_position[:, self.joint_columns(names)]

    def joint_columns(self, names: Sequence[str]) -> list[int]:
        """Return the columns of the named joints; KeyError names the one that is missing."""
        try:
            return [self.joint_names.index(name) for name in names]
        except ValueError:
            missing = [name for name in names if name not in self.joint_names]
            raise KeyError(
                f"joint {missing[0]!r}: {nearest(missing[0], self.joint_names)}"
            ) from None

    def rows(self, index: Tensor | Sequence[int] | slice) -> SceneState:
        """Return the scenes of the given rows."""
        return SceneState(
            self.joint_names,
            self.joint_position[index],
            self.joint_velocity[index],
            {name: pose[index] for name, pose in self.poses.items()},
            {name: velocity[index] for name, velocity in self.velocities.items()},
            {name: reading[index] for name, reading in self.readings.items()},
        )

    def reading(self, sensor: str) -> Tensor:
        """Return what a named sensor measured (N, ...); KeyError names the one that is missing."""
        try:
            return self.readings[sensor]
        except KeyError:
            raise KeyError(f"sensor {sensor!r}: {nearest(sensor, self.readings)}") from None

    def _pose(self, name: str) -> Tensor:
        try:
            return self.poses[name]
        except KeyError:
            raise KeyError(f"body {name!r}: {nearest(name, self.poses)}") from None


def concatenate(scenes: Sequence[SceneState]) -> SceneState:
    """Return all rows of several scenes with the same names as one SceneState."""
    first = scenes[0]
    return SceneState(
        first.joint_names,
        torch.cat([scene.joint_position for scene in scenes]),
        torch.cat([scene.joint_velocity for scene in scenes]),
        {name: torch.cat([scene.poses[name] for scene in scenes]) for name in first.poses},
        {
            name: torch.cat([scene.velocities[name] for scene in scenes])
            for name in first.velocities
        },
        {name: torch.cat([scene.readings[name] for scene in scenes]) for name in first.readings},
    )


def scene_arrays(scene: SceneState) -> dict[str, NDArray[Any]]:
    """Return the numbers of N scenes by name, as a file of arrays holds them."""
    arrays = {
        "joint_names": np.array(scene.joint_names),
        "joint_position": scene.joint_position.numpy(),
        "joint_velocity": scene.joint_velocity.numpy(),
    }
    arrays.update({f"pose/{name}": pose.numpy() for name, pose in scene.poses.items()})
    arrays.update({f"velocity/{name}": v.numpy() for name, v in scene.velocities.items()})
    arrays.update({f"reading/{name}": r.numpy() for name, r in scene.readings.items()})
    return arrays


def scene_hash(scene: SceneState) -> str:
    """Return the SHA-256 of N scenes: equal hashes mean the same initial states, bit for bit."""
    digest = hashlib.sha256()
    for name, array in sorted(scene_arrays(scene).items()):
        digest.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
