"""Which trajectories and tolerances are taken: a table of what a controller says to each."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.tolerances import JointTolerance, Tolerances, resolve
from grpo_ros.deployment.simulation.trajectory_checks import (
    RawPoint,
    TrajectoryRefused,
    check_trajectory,
)
from grpo_ros.deployment.simulation.trajectory_follower import Waypoints

JOINTS = ("a", "b")
MS, NOW = 1_000_000, 10_000_000_000
FREE = ControllerSettings()
PARTIAL = dataclasses.replace(FREE, allow_partial_joints_goal=True)
MOVING = dataclasses.replace(FREE, allow_nonzero_velocity_at_trajectory_end=True)
SOUND = (RawPoint(0, (0.0, 1.0)), RawPoint(100 * MS, (1.0, 2.0)))


def check(
    names: tuple[str, ...] = JOINTS,
    points: tuple[RawPoint, ...] = SOUND,
    start_ns: int = 0,
    settings: ControllerSettings = FREE,
) -> Waypoints:
    commanded = np.array([7.0, 8.0])
    return check_trajectory(names, start_ns, points, JOINTS, NOW, settings, commanded)


@pytest.mark.parametrize(
    ("code", "match", "given"),
    [
        ("INVALID_JOINTS", r"joints \[\]", {"names": ()}),
        ("INVALID_JOINTS", r"joints \['a'\]", {"names": ("a",)}),
        ("INVALID_JOINTS", r"joints \['a', 'b', 'a'\]", {"names": ("a", "b", "a")}),
        ("INVALID_JOINTS", r"joint 'c' is not", {"names": ("a", "c")}),
        ("INVALID_JOINTS", r"joint 'a' comes twice", {"names": ("a", "a")}),
        ("INVALID_JOINTS", r"joints \[\]", {"names": (), "settings": PARTIAL}),
        ("INVALID_GOAL", r"no points", {"points": ()}),
        ("INVALID_GOAL", r"of 'b' is 0.1", {"points": (RawPoint(MS, (0, 0), (0, 0.1)),)}),
        ("OLD_HEADER_TIMESTAMP", r"ended 0.05 s ago", {"start_ns": NOW - 150 * MS}),
        ("INVALID_GOAL", r"point 1 is due", {"points": (SOUND[1], SOUND[1])}),
        ("INVALID_GOAL", r"point 1 is due", {"points": (SOUND[1], SOUND[0])}),
        ("INVALID_GOAL", r"point 0 has no positions", {"points": (RawPoint(0, ()),)}),
        ("INVALID_GOAL", r"has 1 positions", {"points": (RawPoint(0, (1.0,)),)}),
        ("INVALID_GOAL", r"has 3 velocities", {"points": (RawPoint(0, (0, 0), (0, 0, 0)),)}),
        (
            "INVALID_GOAL",
            r"has 1 accelerations",
            {"points": (RawPoint(0, (0, 0), (0, 0), (1,)),)},
        ),
        ("INVALID_GOAL", r"has acc.* velocities", {"points": (RawPoint(0, (0, 0), (), (1, 1)),)}),
        ("INVALID_GOAL", r"has efforts", {"points": (RawPoint(0, (0, 0), (), (), (1, 1)),)}),
        ("INVALID_GOAL", r"finite", {"points": (RawPoint(0, (0, math.nan)),)}),
        (
            "INVALID_GOAL",
            r"finite",
            {"points": (RawPoint(0, (0, 0), (0, math.inf)), RawPoint(MS, (0, 0)))},
        ),
    ],
)
def test_an_unsound_trajectory_is_refused_with_code_and_reason(
    code: str, match: str, given: dict[str, object]
) -> None:
    with pytest.raises(TrajectoryRefused, match=match) as refused:
        check(**given)  # type: ignore[arg-type]
    assert refused.value.code == code


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"points": (RawPoint(0, (0, 0)),)},
        {"start_ns": NOW - 100 * MS},
        {"start_ns": NOW + 100 * MS},
        {"points": (RawPoint(MS, (0, 0), (0, 1e-8)),)},
        {"points": (RawPoint(MS, (0, 0), (0, 0.1)),), "settings": MOVING},
        {"points": (RawPoint(0, (0, 0), (1, 1), (2, 2)), RawPoint(MS, (0, 0)))},
    ],
)
def test_a_sound_trajectory_is_taken(given: dict[str, object]) -> None:
    way = check(**given)  # type: ignore[arg-type]
    assert len(way.points) == len(way.times_ns)


def test_joints_are_sorted_by_name_and_a_partial_goal_keeps_the_others() -> None:
    point = RawPoint(MS, (1.0, 2.0), (0.0, 0.0), (3.0, 4.0))
    sorted_point = check(("b", "a"), (point,)).points[0]
    assert sorted_point.position.tolist() == [2.0, 1.0]
    assert sorted_point.acceleration is not None
    assert sorted_point.acceleration.tolist() == [4.0, 3.0]
    alone = check(("b",), (RawPoint(MS, (1.0,), (0.0,)),), settings=PARTIAL).points[0]
    assert alone.position.tolist() == [7.0, 1.0]
    assert alone.velocity is not None and alone.velocity.tolist() == [0.0, 0.0]


DEFAULT = Tolerances(np.array([0.1, 0.2]), np.array([0.3, 0.4]), 0.5)


def test_a_goals_tolerances_replace_leave_or_erase_those_of_the_parameters() -> None:
    path, goal = [JointTolerance("b", 0.7)], [JointTolerance("a", -1.0), JointTolerance("b", 0.0)]
    got, problem = resolve(DEFAULT, path, goal, -1.0, JOINTS)
    assert (got.path.tolist(), got.goal.tolist(), got.goal_time_s) == ([0.1, 0.7], [0.0, 0.4], 0.0)
    assert problem == ""
    assert resolve(DEFAULT, [], [], 2.0, JOINTS)[0].goal_time_s == 2.0


@pytest.mark.parametrize(
    ("path", "time_s", "match"),
    [
        ([JointTolerance("c", 1.0)], 0.0, "joint 'c'"),
        ([JointTolerance("a", -0.5)], 0.0, "path_tolerance.a is -0.5"),
        ([JointTolerance("a", 0.5, -2.0)], 0.0, "path_tolerance.a is -2"),
        ([JointTolerance("a", math.nan)], 0.0, "path_tolerance.a is nan"),
        ([], -3.0, "goal_time_tolerance is -3"),
    ],
)
def test_a_wrong_tolerance_leaves_all_those_of_the_parameters(
    path: list[JointTolerance], time_s: float, match: str
) -> None:
    got, problem = resolve(DEFAULT, path, [JointTolerance("a", 9.0)], time_s, JOINTS)
    assert got is DEFAULT and match in problem
