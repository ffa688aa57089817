"""Faults: what ends a run, and that nothing stale or missing counts as permission."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from grpo_ros.deployment.safety.curve import make_curve
from grpo_ros.deployment.safety.faults import KEPT_CURVES, FaultConfig, FaultWatch
from grpo_ros.robots.description import ExternalTorque, RobotMode
from grpo_ros.robots.robot import Robot, load_robot

FRANKA = load_robot("franka_fr3")
HOME = FRANKA.home[:7].numpy()
MODE = RobotMode("mode", "std_msgs/msg/String", "data", ("running", "moving"))
MS = 1_000_000


def robot(**safety: object) -> Robot:
    changed = dataclasses.replace(FRANKA.safety, **{"external_torque": None, **safety})  # type: ignore[arg-type]
    description = dataclasses.replace(FRANKA.description, safety=changed)
    return dataclasses.replace(FRANKA, description=description)


def watch(config: FaultConfig | None = None, **safety: object) -> FaultWatch:
    return FaultWatch(robot(**safety), config)


def kind(found: object) -> str:
    return "" if found is None else str(getattr(found, "kind", ""))


# ---------------------------------------------------------------- the enable switch

ENABLED = FaultConfig(enable_topic="enable", enable_timeout_s=0.25)


def test_without_an_enable_topic_no_switch_is_asked_for() -> None:
    assert watch().problem(0.0) is None


def test_a_switch_that_never_spoke_is_not_pressed() -> None:
    found = watch(ENABLED).problem(0.0)
    assert kind(found) == "enable" and found is not None and "'enable'" in found.reason


@pytest.mark.parametrize(
    ("is_enabled", "age_s", "expected"),
    [
        (True, 0.0, ""),
        (True, 0.25, ""),
        (True, 0.26, "enable"),
        (False, 0.0, "enable"),
        (False, 9.0, "enable"),
    ],
)
def test_the_switch_has_to_be_pressed_and_fresh(
    is_enabled: bool, age_s: float, expected: str
) -> None:
    faults = watch(ENABLED)
    faults.put_enable(is_enabled, 100.0)
    assert kind(faults.problem(100.0 + age_s)) == expected


def test_the_last_word_of_the_switch_counts() -> None:
    faults = watch(ENABLED)
    faults.put_enable(True, 1.0)
    faults.put_enable(False, 1.1)
    assert kind(faults.problem(1.1)) == "enable"
    faults.put_enable(True, 1.2)
    assert faults.problem(1.2) is None


# ---------------------------------------------------------------- the robot's mode


def test_a_mode_that_is_not_known_is_a_fault_only_where_a_mode_is_watched() -> None:
    assert kind(watch(robot_mode=MODE).problem(0.0)) == "robot_mode"
    assert watch(FaultConfig(watch_mode=False), robot_mode=MODE).problem(0.0) is None
    assert watch().problem(0.0) is None


@pytest.mark.parametrize(
    ("value", "expected"), [("running", ""), ("moving", ""), ("halted", "robot_mode")]
)
def test_only_accepted_modes_pass(value: str, expected: str) -> None:
    faults = watch(robot_mode=MODE)
    faults.put_mode(value, 0.0)
    assert kind(faults.problem(1e6)) == expected


def test_a_mode_grows_old_where_it_has_a_timeout() -> None:
    faults = watch(FaultConfig(mode_timeout_s=1.0), robot_mode=MODE)
    faults.put_mode("running", 10.0)
    assert faults.problem(11.0) is None
    assert kind(faults.problem(11.1)) == "robot_mode"


# ---------------------------------------------------------------- external torques

TORQUE = ExternalTorque("torques", {"fr3_joint1": 20.0, "fr3_joint7": 10.0})
LIMITED = tuple(TORQUE.limit)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("fr3_joint1", 20.0, ""),
        ("fr3_joint1", -20.1, "external_torque"),
        ("fr3_joint7", 10.1, "external_torque"),
        ("fr3_joint2", 1e9, ""),
        ("fr3_joint1", math.nan, "external_torque"),
        ("fr3_joint1", math.inf, "external_torque"),
    ],
)
def test_a_joint_may_not_feel_more_than_its_limit(name: str, value: float, expected: str) -> None:
    faults = watch(external_torque=TORQUE)
    faults.put_torque(LIMITED, np.zeros(2), 0.0)
    faults.put_torque(["x", name], np.array([math.nan, value]), 0.0)
    found = faults.problem(0.0)
    assert kind(found) == expected
    if found is not None:
        assert name in found.reason
    faults.config = FaultConfig(watch_torque=False)
    assert faults.problem(0.0) is None


def test_torques_without_a_name_each_are_passed_over() -> None:
    faults = watch(external_torque=TORQUE)
    faults.put_torque(LIMITED, np.zeros(2), 0.0)
    faults.put_torque(["fr3_joint1"], np.array([99.0, 99.0]), 0.0)
    assert faults.problem(0.0) is None


@pytest.mark.parametrize(
    ("names", "effort"),
    [((), []), (LIMITED, []), (("panda_joint1", "panda_joint7"), [0.0, 0.0])],
    ids=["nothing", "no effort", "other joints"],
)
def test_torques_that_never_came_are_no_permission(
    names: tuple[str, ...], effort: list[float]
) -> None:
    faults = watch(external_torque=TORQUE)
    faults.put_torque(names, np.array(effort), 0.0)
    found = faults.problem(0.0)
    assert kind(found) == "external_torque" and found is not None
    assert "fr3_joint1" in found.reason and "torques" in found.reason


def test_every_limited_joints_torque_has_to_stay_fresh() -> None:
    faults = watch(FaultConfig(torque_timeout_s=0.5), external_torque=TORQUE)
    faults.put_torque(LIMITED, np.zeros(2), 10.0)
    assert faults.problem(10.5) is None
    faults.put_torque(LIMITED[:1], np.zeros(1), 10.5)
    faults.put_torque(LIMITED, np.zeros(0), 10.5)
    found = faults.problem(10.6)
    assert kind(found) == "external_torque" and found is not None
    assert "fr3_joint7" in found.reason and "old" in found.reason
    faults.put_torque(LIMITED, np.zeros(2), 10.6)
    assert faults.problem(10.6) is None


# ---------------------------------------------------------------- following commands


def put_motion(faults: FaultWatch, stamp_ns: int, speed: float) -> None:
    """Take a motion of joint 1 at a speed for 0.1 s, then at rest."""
    velocity = np.zeros(7)
    velocity[0] = speed
    points = HOME + 0.05 * velocity * np.array([[1.0], [2.0], [2.0]])
    faults.put_curve(stamp_ns, make_curve(HOME, velocity, velocity, points, 0.05, 0.02))


@pytest.mark.parametrize(("distance", "expected"), [(0.29, ""), (0.31, "tracking")])
def test_a_joint_far_from_its_command_is_a_fault_that_names_it(
    distance: float, expected: str
) -> None:
    faults = watch(tracking_error=0.3)
    put_motion(faults, 1000 * MS, 0.0)
    measured = HOME.copy()
    measured[3] -= distance
    found = faults.judge_tracking(1010 * MS, measured)
    assert kind(found) == expected
    assert faults.tracking_error == pytest.approx(distance)
    assert found is None or "fr3_joint4" in found.reason


def test_a_measurement_is_compared_with_what_was_commanded_for_its_own_time() -> None:
    faults = watch(tracking_error=0.05)
    put_motion(faults, 1000 * MS, 2.0)
    then = HOME.copy()
    then[0] += 2.0 * (0.08 - 0.035)
    assert faults.judge_tracking(1080 * MS, then) is None
    assert faults.tracking_error < 1e-9
    assert kind(faults.judge_tracking(1080 * MS, HOME)) == "tracking"


def test_a_measurement_from_before_the_first_command_is_not_judged() -> None:
    faults = watch(tracking_error=0.05)
    assert faults.judge_tracking(0, HOME + 9.0) is None
    put_motion(faults, 1000 * MS, 0.0)
    assert faults.judge_tracking(999 * MS, HOME + 9.0) is None
    assert kind(faults.judge_tracking(1000 * MS, HOME + 9.0)) == "tracking"
    faults.forget()
    assert faults.judge_tracking(1000 * MS, HOME + 9.0) is None


def test_a_measurement_that_is_not_a_number_is_a_fault() -> None:
    faults = watch(tracking_error=0.3)
    put_motion(faults, 0, 0.0)
    measured = HOME.copy()
    measured[2] = math.nan
    assert kind(faults.judge_tracking(0, measured)) == "tracking"


def test_tracking_is_measured_but_no_fault_where_it_is_not_watched() -> None:
    for faults in (
        watch(FaultConfig(watch_tracking=False), tracking_error=0.3),
        watch(tracking_error=0.0),
    ):
        put_motion(faults, 0, 0.0)
        assert faults.judge_tracking(0, HOME + 9.0) is None
        assert faults.tracking_error == pytest.approx(9.0)


def test_old_commands_are_forgotten_in_turn() -> None:
    faults = watch(tracking_error=0.3)
    for i in range(3 * KEPT_CURVES):
        put_motion(faults, i * 50 * MS, 0.0)
    oldest = 2 * KEPT_CURVES * 50 * MS
    assert faults.judge_tracking(oldest - 1, HOME + 9.0) is None
    assert kind(faults.judge_tracking(oldest, HOME + 9.0)) == "tracking"
