"""A driver's gripper: counted and named as the driver does it, and back, and mistakes named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo_ros.errors import RobotError
from grpo_ros.robots import load_robot
from grpo_ros.robots.robot import ROBOTS_DIRECTORY

KNUCKLE = "robotiq_85_left_knuckle_joint"


def test_a_robotiq_is_open_at_0_and_closed_at_0_7929_rad() -> None:
    driver = load_robot("ur5e").driver_gripper
    assert driver is not None and driver.driver_joint == KNUCKLE
    assert driver.to_driver(0.0425) == pytest.approx(0.0, abs=1e-15)
    assert driver.to_driver(0.0) == 0.7929
    assert driver.from_driver(0.7929 / 2.0) == pytest.approx(0.0425 / 2.0)


@given(st.floats(0.0, 0.0425))
def test_there_and_back_is_the_same_position(position: float) -> None:
    driver = load_robot("ur5e").driver_gripper
    assert driver is not None
    assert driver.from_driver(driver.to_driver(position)) == pytest.approx(position, abs=1e-12)


def test_joint_states_come_in_the_descriptions_name_unit_and_direction() -> None:
    driver = load_robot("ur5e").driver_gripper
    assert driver is not None
    names, position, velocity = driver.states_from_driver(
        ["elbow_joint", KNUCKLE], np.array([0.3, 0.0]), np.array([0.1, 0.7929])
    )
    assert names == ["elbow_joint", "left_finger_joint"]
    np.testing.assert_allclose(position, [0.3, 0.0425])
    np.testing.assert_allclose(velocity, [0.1, -0.0425])
    back = driver.states_to_driver(names, position, velocity)
    assert back[0] == ["elbow_joint", KNUCKLE]
    np.testing.assert_allclose(back[1], [0.3, 0.0], atol=1e-15)
    np.testing.assert_allclose(back[2], [0.1, 0.7929])


@pytest.mark.parametrize(
    ("names", "position"),
    [(["elbow_joint"], [0.1]), ([KNUCKLE, KNUCKLE], [0.1, 0.2]), ([KNUCKLE], [0.1, 0.2])],
)
def test_joint_states_without_the_gripper_or_malformed_are_passed_on(
    names: list[str], position: list[float]
) -> None:
    driver = load_robot("ur5e").driver_gripper
    assert driver is not None
    given_position = np.array(position)
    found = driver.states_from_driver(names, given_position, np.zeros(0))
    assert found[0] == names and found[1] is given_position and found[2].size == 0


@pytest.mark.parametrize("name", ["franka_fr3", "so101"])
@given(position=st.floats(allow_nan=False, allow_infinity=False))
def test_a_driver_that_counts_alike_changes_no_bit(name: str, position: float) -> None:
    driver = load_robot(name).driver_gripper
    assert driver is not None and driver.is_same and driver.driver_joint == driver.joint
    assert driver.to_driver(position) == position == driver.from_driver(position)


def test_a_robot_without_gripper_has_none() -> None:
    assert load_robot("diff_base").driver_gripper is None


@pytest.mark.parametrize("closed", ["", "\n  gripper_closed: 0.0"])
def test_half_a_scale_is_refused(tmp_path: Path, closed: str) -> None:
    folder = Path(shutil.copytree(ROBOTS_DIRECTORY / "ur5e", tmp_path / "robot"))
    text = (folder / "robot.yaml").read_text()
    assert "\n  gripper_closed: 0.7929" in text
    (folder / "robot.yaml").write_text(text.replace("\n  gripper_closed: 0.7929", closed))
    with pytest.raises(RobotError, match="gripper_open is 0.0.*two positions.*or neither"):
        load_robot(folder)
