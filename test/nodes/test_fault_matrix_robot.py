"""The deployed faults on the robot's side, and every output: docs/reference/faults.md."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

from commanded_motion import as_received, exactly, slows_down  # noqa: E402
from deploy_helpers import Client  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from fault_harness import STATUS, ServedPolicy  # noqa: E402
from fault_policies import export_orbit  # noqa: E402
from played_robot import (  # noqa: E402
    ENABLE_TOPIC,
    MODE_TOPIC,
    PlayedRobot,
    stamped_after,
    until,
)
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
ROBOT = load_robot("franka_fr3")
ERROR = DiagnosticStatus.ERROR
PERIOD_S = 0.05
NO_TORQUE = dict.fromkeys(ROBOT.arm_joints, 0.0)


def described(folder: Path, gripper_action: str = "", **safety: Any) -> str:
    """Return a folder with the robot's description, in which something is changed."""
    shutil.copytree(ROBOT.urdf_path.parent, folder)
    path = folder / "robot.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["safety"].update(safety)
    if gripper_action:
        tree["interfaces"]["gripper_action"] = gripper_action
    path.write_text(yaml.safe_dump(tree))
    return str(folder)


def assert_stopped_for_good(server: ServedPolicy, robot: PlayedRobot) -> None:
    """The arm came to rest within every limit, nothing comes any more, and the reason stands."""
    until(lambda: robot.speed == 0.0, "rest")
    number = len(robot.commands())
    time.sleep(0.3)
    assert server.client.heard(STATUS)[-1].level == ERROR, server.said()
    assert len(robot.commands()) == number
    assert exactly(robot.commands(), robot.limits) == []
    assert as_received(robot.commands(), robot.limits, robot.start)[1] == []


def assert_starts_again(server: ServedPolicy, robot: PlayedRobot) -> None:
    answer = server.start()
    assert answer.success, answer.message
    until(lambda: robot.speed > 0.1, "motion after ~/start")
    server.stop()


# ------------------------------------------------------------------ who commands


def test_another_publisher_of_commands_refuses_a_start_and_stops_a_run(
    client: Client, server: ServedPolicy, robot: PlayedRobot
) -> None:
    """D1: somebody else commands the arm too."""
    server.run(robot)
    topic = ROBOT.interfaces.arm_trajectory_topic
    other = client.node.create_publisher(JointTrajectory, topic, qos.COMMAND)
    try:
        assert "/test_client" in server.says(ERROR, "publishes on", topic, "too").message
        assert_stopped_for_good(server, robot)
        answer = server.start()
        assert not answer.success and "publishes on" in answer.message
    finally:
        client.node.destroy_publisher(other)
    until(lambda: client.node.count_publishers(topic) == 1, "the other to go")
    time.sleep(0.3)
    assert_starts_again(server, robot)


# ------------------------------------------------------------------ the operator


def test_a_released_enable_switch_brakes_at_once_and_stays_so_until_started(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """D2: the dead-man switch is let go."""
    robot.enable = False
    server.activate(runner__faults__enable_topic=ENABLE_TOPIC)
    time.sleep(0.1)
    answer = server.start()
    assert not answer.success and "released" in answer.message
    robot.enable = True
    time.sleep(0.1)
    assert server.start().success
    until(lambda: robot.speed > 0.1, "motion")
    robot.enable = False
    released_ns = robot.now_ns()
    server.says(ERROR, "the enable switch is released")
    robot.enable = True
    late = stamped_after(robot.commands(), released_ns + 60_000_000)
    assert all(slows_down(sent, robot.limits, PERIOD_S) for sent in late)
    assert_stopped_for_good(server, robot)
    assert_starts_again(server, robot)


def test_an_enable_signal_that_ends_stops_a_run(server: ServedPolicy, robot: PlayedRobot) -> None:
    """D2: the dead-man switch's wire breaks."""
    robot.enable = True
    server.run(robot, runner__faults__enable_topic=ENABLE_TOPIC)
    robot.enable = None
    server.says(ERROR, "the enable signal is", "s old")
    assert_stopped_for_good(server, robot)
    answer = server.start()
    assert not answer.success and "old" in answer.message


# ------------------------------------------------------------------ what the robot says


def test_a_robot_in_another_mode_refuses_a_start_and_stops_a_run(
    server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """D3: an emergency stop is pressed, or the driver is not ready."""
    mode = {"topic": MODE_TOPIC, "type": "std_msgs/msg/Bool", "latched": False}
    folder = described(tmp_path / "robot", robot_mode=mode)
    robot.torques, robot.accepts = NO_TORQUE, False
    server.activate(robot=folder, hardware=True)
    time.sleep(0.1)
    answer = server.start()
    assert not answer.success and "robot_mode says False, expected True" in answer.message
    robot.accepts = True
    time.sleep(0.1)
    assert server.start().success
    until(lambda: robot.speed > 0.1, "motion")
    robot.accepts = False
    server.says(ERROR, "robot_mode says False")
    robot.accepts = True
    assert_stopped_for_good(server, robot)
    assert_starts_again(server, robot)


def test_a_torque_from_outside_over_its_limit_stops_a_run_and_names_the_joint(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """D4: the arm meets something."""
    robot.torques = NO_TORQUE
    server.run(robot, hardware=True)
    robot.torques = {**NO_TORQUE, "fr3_joint2": -25.0}
    server.says(ERROR, "joint 'fr3_joint2' feels -25.0 from outside, at most 20.0")
    assert_stopped_for_good(server, robot)
    robot.torques = NO_TORQUE
    time.sleep(0.1)
    assert_starts_again(server, robot)


def test_an_arm_that_does_not_follow_its_commands_stops_a_run_and_names_the_joint(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """D5: a brake is on, or a joint is held."""
    server.run(robot)
    stuck = list(robot.position) + [0.04]

    def hold(message: Any) -> Any:
        message.position = stuck
        return message

    robot.alter = hold
    assert "from its command, at most 0.300" in server.says(ERROR, "joint 'fr3_joint").message
    until(lambda: robot.speed == 0.0, "rest")
    assert exactly(robot.commands(), robot.limits) == []


def test_a_description_with_tighter_limits_is_refused_with_the_difference(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """D6: the robot that is there may do less than the policy."""
    server.activate()
    robot.describe(ROBOT.urdf.replace('upper="2.7437"', 'upper="1.5"', 1))
    time.sleep(0.3)
    answer = server.start()
    assert not answer.success
    assert "joint 'fr3_joint1' may go from -2.7437 to 1.5, the policy" in answer.message
    robot.describe(ROBOT.urdf)
    until(lambda: server.start().success, "the description")
    assert server.stop()["phase"] == "running"
    assert_starts_again(server, robot)


def test_a_policy_with_a_gripper_is_refused_where_its_action_is_absent(
    server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """D7: the gripper's driver is not there."""
    policy = export_orbit(tmp_path / "gripper.onnx", has_gripper=True)
    # A name of its own: what other tests offered is forgotten only with time.
    folder = described(tmp_path / "robot", gripper_action="absent/gripper_cmd")
    assert not server.configure(policy=str(policy), robot=folder)
    assert "no gripper action 'absent/gripper_cmd'" in server.said()


def test_simulated_time_is_refused_on_hardware(server: ServedPolicy, robot: PlayedRobot) -> None:
    """D11: a robot would go on while /clock stands still."""
    assert not server.configure(hardware=True, use_sim_time=True)
    assert server.state == "unconfigured"
    server.says(ERROR, "use_sim_time with hardware", "set use_sim_time to false")


def test_velocities_streamed_to_hardware_without_a_watchdog_are_refused(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """D8: nothing would stop the arm where the stream ends."""
    robot.torques = NO_TORQUE
    assert not server.configure(hardware=True, command="velocity_stream")
    assert server.state == "unconfigured"
    server.says(ERROR, "velocity_stream", "expected safety.stream_watchdog in its robot.yaml")
