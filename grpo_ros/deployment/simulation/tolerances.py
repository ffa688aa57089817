"""Tolerances of a trajectory: those of the parameters, and a goal's own in their place.

Facts from ros2_controllers, joint_trajectory_controller/include/.../tolerances.hpp and
control_msgs/msg/JointTolerance: a goal's value above 0 replaces the parameter's, 0 leaves it, -1
erases it; any other negative value, or an unknown joint, leaves all parameters as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.trajectory_follower import Array

ERASE = -1.0


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """How far joints may be from what they should be; 0 is not watched.

    Attributes:
        path: (J,) on the way, rad or m.
        goal: (J,) at the end, rad or m.
        goal_time_s: longest wait for the end's; 0: for ever.
    """

    path: Array
    goal: Array
    goal_time_s: float

    @classmethod
    def of(cls, settings: ControllerSettings, num_joints: int) -> Tolerances:
        """Return those of the parameters."""
        return cls(
            np.full(num_joints, settings.path_tolerance),
            np.full(num_joints, settings.goal_tolerance),
            settings.goal_time_s,
        )


class JointTolerance(NamedTuple):
    """control_msgs/JointTolerance.

    Velocity and acceleration are checked for validity alone: without a command interface of
    theirs, a joint_trajectory_controller knows no error of them.
    """

    name: str
    position: float
    velocity: float = 0.0
    acceleration: float = 0.0


def resolve(
    default: Tolerances,
    path: Sequence[JointTolerance],
    goal: Sequence[JointTolerance],
    goal_time_s: float,
    joints: Sequence[str],
) -> tuple[Tolerances, str]:
    """Return the tolerances of a goal, and why they are the default ones where it is wrong.

    Args:
        default: those of the parameters.
        path, goal, goal_time_s: of the goal.
        joints: J names.
    """
    try:
        time_s = _resolved(default.goal_time_s, goal_time_s, "goal_time_tolerance")
        paths = _joints(default.path, path, joints, "path_tolerance")
        goals = _joints(default.goal, goal, joints, "goal_tolerance")
    except ValueError as problem:
        return default, str(problem)
    return Tolerances(paths, goals, time_s), ""


def is_within(error: Array, tolerance: Array) -> bool:
    """Whether no joint is further off than a tolerance that is watched."""
    return not bool(((tolerance > 0.0) & ~(np.abs(error) <= tolerance)).any())


def _joints(
    default: Array, given: Sequence[JointTolerance], joints: Sequence[str], what: str
) -> Array:
    values = default.copy()
    for one in given:
        if one.name not in joints:
            raise ValueError(f"{what} names joint '{one.name}', which is not the controller's")
        column = joints.index(one.name)
        values[column] = _resolved(float(default[column]), one.position, f"{what}.{one.name}")
        for other in (one.velocity, one.acceleration):
            _resolved(0.0, other, f"{what}.{one.name}")
    return values


def _resolved(default: float, given: float, what: str) -> float:
    if given > 0.0:
        return given
    if abs(given - ERASE) < np.finfo(np.float32).eps:
        return 0.0
    if given == 0.0:
        return default
    raise ValueError(f"{what} is {given:g}, expected a tolerance, 0 or -1")
