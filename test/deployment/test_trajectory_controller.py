"""The trajectory controller, the arm's streams and the gripper, step by step, without physics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from grpo_ros.deployment.simulation.arm_drive import ArmDrive
from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.gripper_drive import GripperDrive
from grpo_ros.deployment.simulation.tolerances import Tolerances
from grpo_ros.deployment.simulation.trajectory_controller import (
    CANCELED,
    DEACTIVATED,
    GOAL_TOLERANCE_VIOLATED,
    PATH_VIOLATED,
    PREEMPTED,
    REACHED,
    GoalEnd,
    TrajectoryController,
)
from grpo_ros.deployment.simulation.trajectory_follower import Array, Motion, Waypoints
from grpo_ros.robots.robot import load_robot

MS = 1_000_000
STEP = 2 * MS
FREE = ControllerSettings()
ROBOT = load_robot("franka_fr3")


def way(*points: tuple[int, float], start_ms: int = 0) -> Waypoints:
    """Return a trajectory of one joint; times in ms."""
    motions = tuple(Motion(np.array([value])) for _, value in points)
    return Waypoints(start_ms * MS, tuple(time * MS for time, _ in points), motions)


def tolerances(path: float = 0.0, goal: float = 0.0, time_s: float = 0.0) -> Tolerances:
    return Tolerances(np.array([path]), np.array([goal]), time_s)


class Joint:
    """A joint behind a controller; it follows its command at once, or is stuck."""

    def __init__(self, settings: ControllerSettings = FREE) -> None:
        self.controller = TrajectoryController(("a",), settings, np.zeros(1))
        self.now_ns, self.position, self.is_stuck = 1000 * MS, np.zeros(1), False
        self.ends: list[tuple[int, GoalEnd]] = []

    def run(self, duration_ms: int) -> list[float]:
        """Return the commands."""
        commands = []
        for _ in range(duration_ms * MS // STEP):
            measured = Motion(self.position, np.zeros(1))
            end = self.controller.update(self.now_ns, STEP, measured)
            if end is not None:
                self.ends.append((self.now_ns // MS - 1000, end))
            commands.append(float(self.controller.output[0]))
            self.now_ns += STEP
            if not self.is_stuck:
                self.position = self.controller.output
        return commands


def test_every_step_commands_what_should_be_at_its_end() -> None:
    joint = Joint()
    joint.controller.command(way((100, 1.0)))
    commands = joint.run(110)
    expected = [min(0.02 * (step + 1), 1.0) for step in range(55)]
    assert commands == pytest.approx(expected)
    assert joint.controller.error[0] == 0.0


def test_a_goal_is_reached_once_its_last_point_is_commanded() -> None:
    joint = Joint()
    joint.controller.begin_goal(way((100, 1.0)), tolerances(0.1, 0.01))
    joint.run(200)
    assert joint.ends == [(98, REACHED)] and joint.position[0] == 1.0


def test_a_stuck_joint_violates_the_paths_tolerance_and_is_held_where_it_is() -> None:
    joint = Joint()
    joint.is_stuck = True
    joint.controller.begin_goal(way((100, 1.0)), tolerances(path=0.1))
    commands = joint.run(200)
    assert joint.ends == [(12, PATH_VIOLATED)]
    assert max(commands) == pytest.approx(0.12) and commands[-1] == 0.0


def test_a_joint_that_never_arrives_violates_the_goals_tolerance_after_its_time() -> None:
    joint = Joint()
    joint.is_stuck = True
    joint.controller.begin_goal(way((100, 1.0)), tolerances(goal=0.1, time_s=0.05))
    commands = joint.run(300)
    ((when, end),) = joint.ends
    assert (when, end.status, end.code) == (152, "aborted", GOAL_TOLERANCE_VIOLATED)
    assert end.text == "Aborted due to goal_time_tolerance exceeding by 0.052000 seconds"
    assert commands[60] == 1.0 and commands[-1] == 0.0


def test_without_a_goal_time_a_goal_waits_until_its_tolerance_is_met() -> None:
    joint = Joint()
    joint.is_stuck = True
    joint.controller.begin_goal(way((100, 1.0)), tolerances(goal=0.1))
    joint.run(5000)
    assert joint.ends == [] and joint.controller.has_goal
    joint.is_stuck = False
    joint.run(10)
    assert [end for _, end in joint.ends] == [REACHED]


def test_a_tolerance_of_zero_is_not_watched() -> None:
    joint = Joint()
    joint.is_stuck = True
    joint.controller.begin_goal(way((100, 1.0)), tolerances())
    joint.run(200)
    assert joint.ends == [(98, REACHED)]


def test_a_cancelled_goal_holds_the_measured_position() -> None:
    joint = Joint()
    joint.controller.begin_goal(way((100, 1.0)), tolerances())
    joint.run(50)
    joint.position = np.array([0.4])
    joint.controller.update(joint.now_ns, STEP, Motion(joint.position, np.zeros(1)))
    assert joint.controller.cancel_goal() == CANCELED
    assert joint.controller.cancel_goal() is None
    assert set(joint.run(100)) == {0.4} and joint.ends == []


def test_a_new_goal_preempts_the_one_before() -> None:
    joint = Joint()
    assert joint.controller.begin_goal(way((100, 1.0)), tolerances()) is None
    joint.run(50)
    assert joint.controller.begin_goal(way((50, 0.0)), tolerances()) == PREEMPTED
    joint.run(100)
    assert [end for _, end in joint.ends] == [REACHED] and joint.position[0] == 0.0


def test_a_trajectory_by_topic_replaces_a_goals_and_the_goal_is_judged_by_it() -> None:
    joint = Joint()
    joint.controller.begin_goal(way((100, 1.0)), tolerances(goal=0.01))
    joint.run(50)
    joint.controller.command(way((100, -1.0)))
    joint.run(60)
    assert joint.ends == [] and joint.controller.has_goal
    joint.run(100)
    assert joint.ends == [(148, REACHED)] and joint.position[0] == -1.0


def test_a_trajectory_without_a_goal_is_held_where_it_leaves_the_parameters_tolerance() -> None:
    joint = Joint(dataclasses.replace(FREE, path_tolerance=0.1))
    joint.is_stuck = True
    joint.controller.command(way((100, 1.0)))
    complaints = []
    for _ in range(50):
        joint.run(2)
        complaints.append(joint.controller.complaint)
    assert [text for text in complaints if text] == [
        "Holding position due to path tolerance violation"
    ]
    assert joint.controller.output[0] == 0.0


@pytest.mark.parametrize(("from_desired", "first"), [(False, 0.02), (True, 0.5 + 0.5 * 4 / 102)])
def test_a_trajectory_begins_at_the_measured_state_or_by_parameter_at_the_desired_one(
    from_desired: bool, first: float
) -> None:
    joint = Joint(dataclasses.replace(FREE, interpolate_from_desired_state=from_desired))
    joint.is_stuck = True
    joint.controller.command(way((2, 0.5)))
    joint.run(100)
    joint.controller.command(way((100, 1.0)))
    # The desired state is one step old: two of 51 steps to the point are over at this one's end.
    assert joint.run(2) == pytest.approx([first])


# ------------------------------------------------------------------ streams


def still(arm: ArmDrive) -> Motion:
    return Motion(arm.target, 0.0 * arm.target)


def make_arm() -> tuple[ArmDrive, Array]:
    home = ROBOT.home[:7].numpy()
    return ArmDrive(ROBOT, FREE, home), home


def test_streamed_positions_are_commanded_at_once_and_for_ever() -> None:
    arm, home = make_arm()
    assert arm.stream(ROBOT.arm_joints, home + 0.3, None) is None
    for step in range(5):
        arm.step(step * STEP, STEP, still(arm))
        assert np.array_equal(arm.target, home + 0.3)


def test_streamed_velocities_move_the_targets_until_the_joints_stops() -> None:
    arm, home = make_arm()
    arm.stream(ROBOT.arm_joints, None, np.full(7, 0.5))
    for step in range(100):
        arm.step(step * STEP, STEP, still(arm))
    np.testing.assert_allclose(arm.target, home + 0.1, atol=1e-12)
    for step in range(20_000):
        arm.step(step * STEP, STEP, still(arm))
    upper = [limit.upper for limit in ROBOT.limits[:7]]
    np.testing.assert_allclose(arm.target, upper)


def test_a_joint_command_moves_only_the_joints_that_it_names() -> None:
    arm, home = make_arm()
    arm.stream(("fr3_joint3", "fr3_joint1"), np.array([0.3, 0.1]), np.zeros(2))
    arm.step(0, STEP, still(arm))
    expected = home.copy()
    expected[[2, 0]] = 0.3, 0.1
    assert np.array_equal(arm.target, expected)


@pytest.mark.parametrize(
    ("joints", "values", "match"),
    [
        (ROBOT.arm_joints, [0.0] * 6, "6 values for 7 joints"),
        (ROBOT.arm_joints, [0.0] * 6 + [np.nan], "not finite"),
        (("wheel",), [0.0], "'wheel' is unknown"),
        (("fr3_joint1", "fr3_joint1"), [0.0, 1.0], "comes twice"),
        (ROBOT.arm_joints, None, "neither positions nor velocities"),
    ],
)
def test_a_streamed_command_that_is_not_sound_changes_nothing(
    joints: tuple[str, ...], values: list[float] | None, match: str
) -> None:
    arm, home = make_arm()
    arm.begin_goal(
        Waypoints(0, (100 * MS,), (Motion(home + 0.1),)), arm.trajectories.default_tolerances
    )
    for kind in range(2):
        given = None if values is None else np.array(values)
        with pytest.raises(ValueError, match=match):
            arm.stream(joints, given if kind == 0 else None, given if kind == 1 else None)
    arm.step(0, STEP, still(arm))
    assert arm.trajectories.has_goal
    np.testing.assert_allclose(arm.target, home + 0.002)


def test_the_last_command_wins_and_a_stream_ends_a_goal() -> None:
    arm, home = make_arm()
    long = Waypoints(0, (100 * MS,), (Motion(home + 0.1),))
    arm.begin_goal(long, arm.trajectories.default_tolerances)
    assert arm.stream(ROBOT.arm_joints, home - 0.2, None) == DEACTIVATED
    arm.step(0, STEP, still(arm))
    assert np.array_equal(arm.target, home - 0.2)
    arm.command(Waypoints(0, (STEP,), (Motion(home),)))
    arm.step(STEP, STEP, still(arm))
    np.testing.assert_allclose(arm.target, home, atol=1e-12)


# ------------------------------------------------------------------ gripper


def test_a_gripper_is_reached_within_its_tolerance_or_stalls_after_its_timeout() -> None:
    gripper = GripperDrive(FREE)
    gripper.command(0.04, 0)
    assert gripper.check(STEP, 0.029, 0.0) is None
    assert gripper.check(STEP, 0.031, 0.5) == "reached"
    assert gripper.check(900 * MS, 0.02, 0.0011) is None  # it moves
    assert gripper.check(1900 * MS, 0.02, 0.0) is None
    assert gripper.check(1900 * MS + STEP, 0.02, 0.0) == "stalled"
    gripper.command(0.0, 1900 * MS + 2 * STEP)
    assert gripper.check(1900 * MS + 3 * STEP, 0.02, 0.0) is None
