"""DriverGripper: a gripper's position as its driver counts it, and as its description does.

A driver may name and count the joint otherwise: Robotiq's says 0 rad for open and 0.7929 rad for
closed where our fingers slide 42.5 mm. The two are taken to be linear in each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from grpo_ros.elementary import Array
from grpo_ros.errors import RobotError
from grpo_ros.robots.description import DESCRIPTION_FILE, Gripper, Interfaces


@dataclasses.dataclass(frozen=True)
class DriverGripper:
    """From the description's positions p to the driver's d: d = scale (p - closed) + start.

    Attributes:
        joint: the driver joint's name in the description. driver_joint: in the driver's messages.
        closed: the description's closed position, m or rad. start: the driver's.
        scale: the driver's unit over the description's; 1 where both count alike.
    """

    joint: str
    driver_joint: str
    closed: float = 0.0
    start: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, gripper: Gripper, interfaces: Interfaces) -> DriverGripper:
        """Return what a robot's YAML says.

        Raises:
            RobotError: one of the driver's positions is given without the other, or they agree.
        """
        name = interfaces.gripper_joint or gripper.joint
        opened, closed = interfaces.gripper_open, interfaces.gripper_closed
        if opened is None and closed is None:
            return cls(gripper.joint, name)
        if opened is None or closed is None or opened == closed:
            raise RobotError(
                f"{DESCRIPTION_FILE}: gripper_open is {opened} and gripper_closed {closed}",
                expected="two positions as the driver counts them, or neither",
            )
        span = gripper.open_position_m - gripper.closed_position_m
        scale = (opened - closed) / span
        return cls(gripper.joint, name, gripper.closed_position_m, closed, scale)

    @property
    def is_same(self) -> bool:
        """Whether the driver counts as the description does; then no bit is changed."""
        return self.scale == 1.0 and self.start == self.closed

    def to_driver(self, position: float) -> float:
        """Return the driver's position for one of the description's."""
        return position if self.is_same else self.scale * (position - self.closed) + self.start

    def from_driver(self, position: float) -> float:
        """Return the description's position for one of the driver's."""
        return position if self.is_same else (position - self.start) / self.scale + self.closed

    def states_from_driver(
        self, names: Sequence[str], position: Array, velocity: Array
    ) -> tuple[list[str], Array, Array]:
        """Return joint states (J,) of a driver with the gripper as the description counts it.

        `velocity` may be empty. Arrays of another length than `names` are passed on as they are.
        """
        return self._renamed(names, position, velocity, self.driver_joint, self.joint, True)

    def states_to_driver(
        self, names: Sequence[str], position: Array, velocity: Array
    ) -> tuple[list[str], Array, Array]:
        """Return joint states (J,) with the gripper as its driver would report it."""
        return self._renamed(names, position, velocity, self.joint, self.driver_joint, False)

    def _renamed(
        self,
        names: Sequence[str],
        position: Array,
        velocity: Array,
        old: str,
        new: str,
        is_from_driver: bool,
    ) -> tuple[list[str], Array, Array]:
        words = list(names)
        if words.count(old) != 1 or len(position) != len(words):
            return words, position, velocity
        column = words.index(old)
        words[column] = new
        if self.is_same:
            return words, position, velocity
        position, velocity = np.array(position), np.array(velocity)
        turned = self.from_driver if is_from_driver else self.to_driver
        position[column] = turned(float(position[column]))
        if len(velocity) == len(words):
            velocity[column] *= 1.0 / self.scale if is_from_driver else self.scale
        return words, position, velocity
