"""Checks of a trajectory before it is followed: those of a joint_trajectory_controller, and more.

Facts from ros2_controllers, `validate_trajectory_msg` in joint_trajectory_controller.cpp. Three
checks are ours, since a controller that went on would command what nobody meant: a joint named
twice, numbers that are not finite, accelerations without velocities.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.trajectory_follower import Array, Motion, Waypoints
from grpo_ros.errors import GrpoRosError, nearest

Code = Literal["INVALID_GOAL", "INVALID_JOINTS", "OLD_HEADER_TIMESTAMP"]
STANDS_STILL = float(np.finfo(np.float32).eps)
"""A last point is at rest at no more than this, rad/s or m/s."""


class RawPoint(NamedTuple):
    """One point of a trajectory message; sequences in the message's order, empty: not said."""

    time_ns: int
    positions: Sequence[float]
    velocities: Sequence[float] = ()
    accelerations: Sequence[float] = ()
    effort: Sequence[float] = ()


class TrajectoryRefused(GrpoRosError):
    """A trajectory is not followed.

    Args:
        code: name of the error code of FollowJointTrajectory that fits.
        what, expected, remedy: see `GrpoRosError`.
    """

    def __init__(self, code: Code, what: str, *, expected: str = "", remedy: str = "") -> None:
        super().__init__(what, expected=expected, remedy=remedy)
        self.code = code


def check_trajectory(
    names: Sequence[str],
    start_ns: int,
    points: Sequence[RawPoint],
    joints: Sequence[str],
    now_ns: int,
    settings: ControllerSettings,
    commanded: Array,
) -> Waypoints:
    """Return a trajectory in the controller's order of joints.

    Args:
        names: of the message's joints.
        start_ns: the message's stamp; 0: now.
        points: of the message.
        joints: J, the controller's.
        now_ns: the present.
        settings: what is allowed.
        commanded: (J,) what joints keep that a partial trajectory leaves out.

    Raises:
        TrajectoryRefused: with the code and the reason.
    """
    _check_names(names, joints, settings)
    if not points:
        raise TrajectoryRefused("INVALID_GOAL", "no points", expected="one at least")
    if not settings.allow_nonzero_velocity_at_trajectory_end:
        _check_rest(names, points[-1])
    end_ns = start_ns + points[-1].time_ns
    if start_ns != 0 and end_ns < now_ns:
        raise TrajectoryRefused(
            "OLD_HEADER_TIMESTAMP",
            f"the trajectory ended {(now_ns - end_ns) / 1e9:g} s ago",
            expected="an end in the future, or stamp 0 for now",
        )
    for row, (earlier, later) in enumerate(itertools.pairwise(points)):
        if later.time_ns <= earlier.time_ns:
            raise TrajectoryRefused(
                "INVALID_GOAL",
                f"point {row + 1} is due {later.time_ns} ns after the start, "
                f"point {row} {earlier.time_ns} ns",
                expected="times that increase",
            )
    order = [joints.index(name) for name in names]
    motions = tuple(_motion(row, point, order, commanded) for row, point in enumerate(points))
    return Waypoints(start_ns, tuple(point.time_ns for point in points), motions)


def _check_names(
    names: Sequence[str], joints: Sequence[str], settings: ControllerSettings
) -> None:
    expected = f"{list(joints)}"
    if not names or (len(names) != len(joints) and not settings.allow_partial_joints_goal):
        raise TrajectoryRefused("INVALID_JOINTS", f"joints {list(names)}", expected=expected)
    for row, name in enumerate(names):
        if name not in joints:
            raise TrajectoryRefused(
                "INVALID_JOINTS",
                f"joint '{name}' is not the controller's",
                expected=f"joints {expected}",
                remedy=nearest(name, joints),
            )
        if name in names[:row]:
            raise TrajectoryRefused(
                "INVALID_JOINTS", f"joint '{name}' comes twice", expected="each joint once"
            )


def _check_rest(names: Sequence[str], last: RawPoint) -> None:
    for name, velocity in zip(names, last.velocities, strict=False):
        if abs(velocity) > STANDS_STILL:
            raise TrajectoryRefused(
                "INVALID_GOAL",
                f"the last point's velocity of '{name}' is {velocity:g}",
                expected="0",
                remedy="set allow_nonzero_velocity_at_trajectory_end",
            )


def _motion(row: int, point: RawPoint, order: Sequence[int], commanded: Array) -> Motion:
    """Return a point in the controller's order."""
    if len(point.effort):
        raise TrajectoryRefused(
            "INVALID_GOAL", f"point {row} has efforts", expected="none: positions are commanded"
        )
    if len(point.accelerations) and not len(point.velocities):
        raise TrajectoryRefused(
            "INVALID_GOAL", f"point {row} has accelerations", expected="velocities with them"
        )
    still = np.zeros_like(commanded)
    position = _sorted(row, "positions", point.positions, order, commanded)
    if position is None:
        raise TrajectoryRefused(
            "INVALID_GOAL", f"point {row} has no positions", expected=f"{len(order)}"
        )
    return Motion(
        position,
        _sorted(row, "velocities", point.velocities, order, still),
        _sorted(row, "accelerations", point.accelerations, order, still),
    )


def _sorted(
    row: int, what: str, values: Sequence[float], order: Sequence[int], others: Array
) -> Array | None:
    """Return values (J,) by the controller's joints; joints left out have those of `others`."""
    if not len(values):
        return None
    if len(values) != len(order):
        raise TrajectoryRefused(
            "INVALID_GOAL", f"point {row} has {len(values)} {what}", expected=f"{len(order)}"
        )
    array = np.array(others, dtype=np.float64)
    array[list(order)] = values
    if not np.isfinite(array).all():
        raise TrajectoryRefused(
            "INVALID_GOAL",
            f"point {row} has {what} {list(values)}",
            expected="finite numbers",
        )
    return array
