"""What was measured earlier is brought to the tick, exactly where motion is steady."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from deployment_fakes import ARM, FINGER, MS, ROBOT, home, make_contract

from grpo_ros.deployment.inputs.extrapolation import LONGEST_NS, MovingPose, bring_joints
from grpo_ros.deployment.inputs.observation_buffer import ObservationBuffer, Reading

NAMES = (*ARM, FINGER)
T = 1_000 * MS
VELOCITY = np.linspace(-0.4, 0.2, 8)


def turned(angle: float, x: float = 0.0) -> Any:
    return np.array([x, 0.0, 0.0, 0.0, 0.0, math.sin(angle / 2), math.cos(angle / 2)])


def filled(*, extrapolates: bool) -> ObservationBuffer:
    """Return a buffer whose joints are 4 ms old at T and whose cube moves, 14 ms old."""
    buffer = ObservationBuffer(make_contract(), ROBOT, extrapolates)
    for age, x in ((34, 0.48), (14, 0.5)):
        assert buffer.put_pose(T - age * MS, "cube", "base", (x, 0.0, 0.02), (0, 0, 0, 1))
    assert buffer.put_joint_state(T - 4 * MS, NAMES, home(), VELOCITY)
    return buffer


def read(buffer: ObservationBuffer, now_ns: int) -> Reading:
    reading = buffer.read(now_ns)
    assert isinstance(reading, Reading)
    return reading


def test_joints_go_on_at_their_velocity_and_bodies_as_they_moved() -> None:
    reading = read(filled(extrapolates=True), T)
    joints = reading.scene.joints(NAMES)[0].numpy()
    np.testing.assert_allclose(joints, home() + 0.004 * VELOCITY, atol=1e-12)
    cube = reading.scene.poses["cube"][0].numpy()
    np.testing.assert_allclose(cube, [0.514, 0.0, 0.02, 0, 0, 0, 1], atol=1e-12)
    assert (reading.scene_ns, reading.oldest_ns) == (T, T - 14 * MS)
    assert reading.age_s == pytest.approx(0.014)


def test_without_it_inputs_stay_as_they_were_measured() -> None:
    reading = read(filled(extrapolates=False), T)
    assert reading.scene.joints(NAMES)[0].tolist() == home().tolist()
    assert reading.scene.poses["cube"][0, 0] == 0.5
    assert reading.scene_ns == reading.oldest_ns == T - 14 * MS


def test_a_velocity_that_cannot_be_brings_a_joint_no_further_than_the_fastest_that_can() -> None:
    buffer, contract = filled(extrapolates=True), make_contract()
    buffer.put_joint_state(T - 2 * MS, NAMES, home(), np.full(8, 1e6))
    joints = read(buffer, T).scene.joints(ARM)[0].numpy()
    fastest = np.array([limit.velocity for limit in contract.limits[:7]])
    np.testing.assert_allclose(joints, home()[:7] + 0.002 * fastest, atol=1e-12)


def test_inputs_of_now_are_not_touched() -> None:
    buffer = filled(extrapolates=True)
    buffer.put_joint_state(T, NAMES, home() + 0.1, VELOCITY)
    buffer.put_pose(T, "cube", "base", (0.6, 0.1, 0.02), (0, 0, 0, 1))
    reading = read(buffer, T)
    assert reading.scene.joints(NAMES)[0].tolist() == (home() + 0.1).tolist()
    assert reading.scene.poses["cube"][0].tolist() == [0.6, 0.1, 0.02, 0, 0, 0, 1]


def test_joints_whose_velocity_is_not_measured_stay() -> None:
    position, velocity = np.array([1.0, 2.0, 3.0]), np.array([np.nan, 0.5, 0.5])
    brought = bring_joints(position, velocity, np.array([20, 20, -20]) * MS)
    np.testing.assert_allclose(brought, [1.0, 2.01, 3.0])


def test_what_is_old_is_brought_a_tenth_of_a_second_or_as_far_again() -> None:
    brought = bring_joints(np.zeros(1), np.ones(1), np.array([3 * LONGEST_NS]))
    assert brought[0] == pytest.approx(0.1)
    pose = MovingPose(0, turned(0.0)).followed_by(20 * MS, turned(0.0, 0.01))
    assert pose.at(20 * MS + 3 * LONGEST_NS)[0] == pytest.approx(0.02)


def test_poses_in_quick_succession_are_no_great_speed() -> None:
    pose = MovingPose(0, turned(0.0)).followed_by(MS // 10, turned(0.0, 0.001))
    assert pose.at(50 * MS)[0] == pytest.approx(0.002)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_steady_turn_goes_on_whatever_the_quaternions_sign(sign: float) -> None:
    second = turned(0.05)
    second[3:] *= sign
    pose = MovingPose(0, turned(0.0)).followed_by(20 * MS, second).at(30 * MS)
    assert np.linalg.norm(pose[3:]) == pytest.approx(1.0)
    assert 2 * math.atan2(abs(pose[5]), abs(pose[6])) == pytest.approx(0.075, abs=1e-5)


def test_one_pose_two_far_apart_or_half_a_turn_say_nothing() -> None:
    first = MovingPose(0, turned(0.0))
    assert first.at(50 * MS).tolist() == turned(0.0).tolist()
    late = first.followed_by(LONGEST_NS + MS, turned(0.0, 0.3))
    assert late.at(late.stamp_ns + 10 * MS)[0] == 0.3
    turn = first.followed_by(20 * MS, turned(math.pi))
    assert turn.at(40 * MS).tolist() == turned(math.pi).tolist()


def test_the_same_stamp_again_replaces_and_keeps_the_motion() -> None:
    pose = MovingPose(0, turned(0.0)).followed_by(20 * MS, turned(0.0, 0.02))
    again = pose.followed_by(20 * MS, turned(0.0, 0.02))
    assert again.at(30 * MS)[0] == pytest.approx(0.03)


def test_a_new_episode_forgets_how_bodies_moved() -> None:
    buffer = filled(extrapolates=True)
    buffer.forget_before(T)
    buffer.put_joint_state(T, NAMES, home(), VELOCITY)
    buffer.put_pose(T, "cube", "base", (0.1, 0.0, 0.02), (0, 0, 0, 1))
    assert read(buffer, T + 10 * MS).scene.poses["cube"][0, 0] == 0.1
