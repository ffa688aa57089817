"""What a driver's robot_description has to have in common with ours, and what it need not."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

pytest.importorskip("rclpy")

from grpo_ros.contract import Contract  # noqa: E402
from grpo_ros.deployment.matching import check_match  # noqa: E402
from grpo_ros.deployment.safety.faults import FaultConfig, FaultWatch  # noqa: E402
from grpo_ros.errors import ContractError  # noqa: E402
from grpo_ros.nodes.serving.fault_inputs import FaultInputs  # noqa: E402
from grpo_ros.nodes.serving.listeners import publisher_problem  # noqa: E402
from grpo_ros.nodes.serving.live_robot import LiveRobot, description_differences  # noqa: E402
from grpo_ros.robots.robot import Robot, load_robot  # noqa: E402
from grpo_ros.tasks.navigate import Navigate, NavigateConfig  # noqa: E402
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig  # noqa: E402

WHEEL = """
  <link name="wheel"/>
  <joint name="wheel_joint" type="continuous">
    <parent link="{parent}"/><child link="wheel"/><axis xyz="0 1 0"/>
  </joint>
</robot>"""
BASE = '<robot name="rover"><link name="base_link"/>' + WHEEL.format(parent="base_link")
OURS = '<limit lower="0" upper="0.0425" velocity="0.075" effort="117"/>'


def arm_of(name: str) -> tuple[Contract, Robot]:
    return PickPlace(PickPlaceConfig(robot=name)).contract(), load_robot(name)


def with_driver_gripper(robot: Robot, upper: float) -> str:
    """Return the URDF with Robotiq's knuckle in place of our left finger."""
    head, tail = robot.urdf.split('<joint name="left_finger_joint" type="prismatic">')
    limit = f'<limit lower="0" upper="{upper}" velocity="2.0" effort="50"/>'
    tail = tail.replace(OURS, limit, 1)
    knuckle = "robotiq_85_left_knuckle_joint"
    text = f'{head}<joint name="{knuckle}" type="revolute">{tail}'
    return text.replace('"left_finger_joint"', f'"{knuckle}"')


def test_a_real_base_needs_none_of_the_joints_that_say_where_ours_is() -> None:
    contract = Navigate(NavigateConfig()).contract()
    assert description_differences(BASE, contract, load_robot("diff_base")) == []


def test_a_joint_that_nobody_commands_needs_no_limits() -> None:
    contract, robot = arm_of("franka_fr3")
    text = robot.urdf.replace("</robot>", WHEEL.format(parent=robot.description.base_frame))
    assert description_differences(text, contract, robot) == []
    tighter = text.replace('upper="2.7437"', 'upper="1.5"', 1)
    (found,) = description_differences(tighter, contract, robot)
    assert found.startswith("joint 'fr3_joint1' may go from -2.7437 to 1.5")


def test_a_continuous_joint_that_is_published_holds_the_bounds_that_it_is_taken_to_have(
    tmp_path: Path,
) -> None:
    robot = load_robot("franka_fr3")
    shutil.copytree(robot.urdf_path.parent, tmp_path / "robot")
    text = robot.urdf.replace('"fr3_joint1" type="revolute"', '"fr3_joint1" type="continuous"')
    (tmp_path / "robot" / "robot.urdf").write_text(text)
    turning = load_robot(tmp_path / "robot")
    contract = PickPlace(PickPlaceConfig(robot=str(tmp_path / "robot"))).contract()
    check_match(contract, turning)
    assert description_differences(text, contract, turning) == []
    (found, tighter) = description_differences(robot.urdf, contract, turning)
    assert found == "joint 'fr3_joint1' is revolute, not continuous"
    assert tighter.endswith("the policy from -1000.0 to 1000.0")


def test_a_gripper_is_compared_under_the_name_and_in_the_unit_of_its_driver() -> None:
    contract, robot = arm_of("ur5e")
    assert description_differences(robot.urdf, contract, robot) == []
    assert description_differences(with_driver_gripper(robot, 0.8), contract, robot) == []
    (found,) = description_differences(with_driver_gripper(robot, 0.5), contract, robot)
    assert found.startswith("joint 'robotiq_85_left_knuckle_joint' may go from 0.0 to 0.5")


def test_a_joint_of_the_arm_has_to_be_there_a_gripper_may_be_described_elsewhere() -> None:
    contract, robot = arm_of("ur5e")
    text = robot.urdf.replace("left_finger_joint", "finger")
    assert description_differences(text, contract, robot) == []
    text = text.replace("elbow_joint", "other")
    assert description_differences(text, contract, robot) == ["no joint 'elbow_joint'"]


@pytest.mark.parametrize(
    ("listeners", "problem"),
    [
        ([], "nobody listens to '/command' (std_msgs/msg/String)"),
        (
            ["recorder_intake", "evaluator", "_ros2cli_12", "rosbag2_recorder", "rviz2"],
            "nobody listens to '/command' (std_msgs/msg/String)",
        ),
        (["recorder_intake", "arm_controller"], ""),
    ],
)
def test_who_only_looks_at_commands_is_no_controller(listeners: list[str], problem: str) -> None:
    """Regression: beside a recorder nobody missed the controller."""
    kind = "std_msgs/msg/String"
    node = MagicMock()
    node.get_publishers_info_by_topic.return_value = []
    node.get_subscriptions_info_by_topic.return_value = [
        SimpleNamespace(node_name=name, topic_type=kind) for name in listeners
    ]
    assert publisher_problem(node, "/command", kind) == problem


def test_an_enable_switch_that_nobody_publishes_is_named_with_what_to_do() -> None:
    node, robot = MagicMock(), load_robot("ur5e")
    node.resolve_topic_name.side_effect = lambda name: f"/{name}"
    node.get_publishers_info_by_topic.return_value = []
    config = FaultConfig(enable_topic="enable", watch_mode=False, watch_torque=False)
    inputs = FaultInputs(node, robot, config, FaultWatch(robot, config), lambda: None)
    topics = [("/joint_states", "sensor_msgs/msg/JointState"), *inputs.topics()]
    with pytest.raises(ContractError) as found:
        LiveRobot(node).wait_for(topics, lambda: "", 0.0, inputs.remedies)
    text = str(found.value)
    assert "nobody publishes '/joint_states' (sensor_msgs/msg/JointState); nobody" in text
    assert "'/enable' (std_msgs/msg/Bool), the enable switch: start its driver" in text
    assert "ros2 topic pub -r 16 /enable std_msgs/msg/Bool '{data: true}'" in text
    assert "enable_topic:=none" in text
