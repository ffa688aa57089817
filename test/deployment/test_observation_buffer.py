"""The observation buffer: by name, complete, fresh, aligned, and never anything unsound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from deployment_fakes import ARM, FINGER, MS, ROBOT, home, make_contract
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.deployment.observation_buffer import NotReady, ObservationBuffer, Reading

NAMES = (*ARM, FINGER)
STILL = np.zeros(8)
POSE = (0.5, 0.1, 0.02), (0.0, 0.0, 0.6, 0.8)


def filled(stamp_ns: int = 100 * MS) -> ObservationBuffer:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    assert buffer.put_joint_state(stamp_ns, NAMES, home(), STILL)
    assert buffer.put_pose(stamp_ns, "cube", "base", *POSE)
    return buffer


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(8)), st.integers(0, 3))
def test_joints_are_taken_by_name_in_any_order_and_with_strangers(
    order: list[int], num_strangers: int
) -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    names = [NAMES[i] for i in order] + [f"wheel_{i}" for i in range(num_strangers)]
    position = np.append(home()[order], np.full(num_strangers, 7.0))
    assert buffer.put_joint_state(MS, names, position, np.zeros(len(names)))
    buffer.put_pose(MS, "cube", "base", *POSE)
    reading = buffer.read(MS)
    assert isinstance(reading, Reading)
    assert np.array_equal(reading.scene.joints(NAMES)[0].numpy(), home())


def test_arm_and_gripper_may_report_apart() -> None:
    buffer = ObservationBuffer(make_contract(), ROBOT)
    buffer.put_pose(MS, "cube", "base", *POSE)
    buffer.put_joint_state(MS, ARM, home()[:7], STILL[:7])
    missing = buffer.read(MS)
    assert missing == NotReady("missing", f"no position of joint '{FINGER}'")
    buffer.put_joint_state(MS, (FINGER,), home()[7:], np.zeros(0))
    assert isinstance(buffer.read(MS), Reading)


def test_what_is_missing_is_named() -> None:
    answer = ObservationBuffer(make_contract(), ROBOT).read(0)
    assert isinstance(answer, NotReady) and answer.kind == "missing"
    assert "pose of 'cube'" in answer.reason and "joint 'fr3_joint3'" in answer.reason


def test_a_velocity_that_is_needed_and_not_measured_is_missing() -> None:
    buffer = filled()
    fresh = ObservationBuffer(make_contract(), ROBOT)
    fresh.put_joint_state(MS, NAMES, home(), np.zeros(0))
    fresh.put_pose(MS, "cube", "base", *POSE)
    answer = fresh.read(MS)
    assert isinstance(answer, NotReady) and "velocity of joint 'fr3_joint1'" in answer.reason
    assert isinstance(buffer.read(100 * MS), Reading)


def test_stale_future_and_skewed_inputs_are_named() -> None:
    buffer = filled()
    stale = buffer.read(201 * MS)
    assert isinstance(stale, NotReady) and stale.kind == "stale" and "101 ms" in stale.reason
    future = buffer.read(-10 * MS)
    assert isinstance(future, NotReady) and future.kind == "future"
    buffer.put_joint_state(151 * MS, NAMES, home(), STILL)
    skewed = buffer.read(160 * MS)
    assert isinstance(skewed, NotReady) and skewed.kind == "skewed" and "51 ms" in skewed.reason


def test_age_is_that_of_the_oldest_input() -> None:
    buffer = filled()
    buffer.put_joint_state(130 * MS, NAMES, home(), STILL)
    reading = buffer.read(150 * MS)
    assert isinstance(reading, Reading)
    assert reading.age_s == pytest.approx(0.05)
    assert (reading.oldest_ns, reading.newest_ns) == (100 * MS, 130 * MS)


def test_it_is_aligned_only_when_all_inputs_share_a_stamp() -> None:
    buffer = filled()
    assert buffer.aligned_ns() == 100 * MS
    buffer.put_pose(150 * MS, "cube", "base", *POSE)
    assert buffer.aligned_ns() is None
    buffer.put_joint_state(150 * MS, NAMES, home(), STILL)
    assert buffer.aligned_ns() == 150 * MS


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_and_the_last_good_ones_stay(bad: float) -> None:
    buffer = filled()
    position, speed = home(), STILL.copy()
    position[2] = speed[5] = bad
    assert not buffer.put_joint_state(101 * MS, NAMES, position, STILL)
    assert not buffer.put_joint_state(101 * MS, NAMES, home(), speed)
    assert not buffer.put_pose(101 * MS, "cube", "base", (bad, 0.0, 0.0), POSE[1])
    assert buffer.rejected["not_finite"] == 3
    reading = buffer.read(101 * MS)
    assert isinstance(reading, Reading) and reading.newest_ns == 100 * MS


@pytest.mark.parametrize(
    ("names", "position", "velocity", "kind"),
    [
        (NAMES, home()[:5], STILL, "width"),
        (NAMES, home(), STILL[:3], "width"),
        (NAMES[:7] + NAMES[:1], home(), STILL, "duplicate"),
    ],
)
def test_malformed_joint_states_are_refused(
    names: tuple[str, ...], position: np.ndarray, velocity: np.ndarray, kind: str
) -> None:
    buffer = filled()
    assert not buffer.put_joint_state(101 * MS, names, position, velocity)
    assert buffer.rejected == {kind: 1} and buffer.last_rejection


def test_poses_in_other_frames_or_with_bad_quaternions_are_refused() -> None:
    buffer = filled()
    assert not buffer.put_pose(101 * MS, "cube", "camera", *POSE)
    assert not buffer.put_pose(101 * MS, "cube", "base", POSE[0], (0.0, 0.0, 0.0, 0.0))
    assert not buffer.put_pose(101 * MS, "stranger", "base", *POSE)
    assert buffer.rejected == {"frame": 1, "quaternion": 1}


def test_older_inputs_never_replace_newer_ones() -> None:
    buffer = filled()
    assert not buffer.put_joint_state(99 * MS, NAMES, home() + 1.0, STILL)
    assert not buffer.put_pose(99 * MS, "cube", "base", (9.0, 9.0, 9.0), POSE[1])
    reading = buffer.read(100 * MS)
    assert isinstance(reading, Reading)
    assert np.array_equal(reading.scene.joints(NAMES)[0].numpy(), home())


def test_forgotten_inputs_are_missing_and_older_ones_stay_out() -> None:
    buffer = filled()
    buffer.forget_before(101 * MS)
    assert isinstance(buffer.read(101 * MS), NotReady)
    assert not buffer.put_pose(100 * MS, "cube", "base", *POSE)
    assert buffer.put_pose(101 * MS, "cube", "base", *POSE)
    buffer.clear()
    assert buffer.put_pose(1, "cube", "base", *POSE)
