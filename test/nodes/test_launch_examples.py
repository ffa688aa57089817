"""Launch examples of robots: their names are those of robot.yaml, and what is missing is named."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch_ros")
from launch import LaunchContext
from launch.actions import GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from grpo_ros.errors import ConfigurationError, GrpoRosError, MissingExtraError
from grpo_ros.nodes import driver_launch
from grpo_ros.robots import known_robots, load_robot

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "launch" / "examples"
ARMS = ("franka_fr3", "ur5e", "so101")
GIVEN = {
    "franka_fr3": {"robot_ip": "10.0.0.2"},
    "ur5e": {"robot_ip": "10.0.0.2"},
    "so101": {"usb_port": "/dev/ttyACM0"},
    "diff_base": {},
}
VENDOR = {
    "franka_fr3": ("franka_bringup", "franka.launch.py"),
    "ur5e": ("ur_robot_driver", "ur_control.launch.py"),
    "so101": ("so101_bringup", "follower.launch.py"),
}


EMPTY = """from launch import LaunchDescription


def generate_launch_description():
    return LaunchDescription([])
"""


def location(included):
    """Return the path of an included launch file, which is known once it was read."""
    included.launch_description_source.get_launch_description(LaunchContext())
    return included.launch_description_source.location


def description(robot):
    source = PythonLaunchDescriptionSource(str(EXAMPLES / f"{robot}.launch.py"))
    return source.get_launch_description(LaunchContext())


def driver(robot, context, **given):
    """Return what `driver:=true` starts, as ros2 launch would visit it."""
    for argument in description(robot).get_launch_arguments():
        if argument.default_value is not None:
            text = "".join(part.perform(context) for part in argument.default_value)
            context.launch_configurations.setdefault(argument.name, text)
    context.launch_configurations.update(driver="true", **GIVEN[robot], **given)
    (function,) = (e for e in description(robot).entities if isinstance(e, OpaqueFunction))
    return function.execute(context)


def controllers(robot):
    """Return the parameters of every node in a robot's controllers file."""
    text = driver_launch.controllers_file(robot).read_text()
    tree = yaml.safe_load(text)
    # In any namespace; a repeated key would be lost.
    assert sum(line == "/**:" for line in text.splitlines()) == 1 == len(tree)
    return {name: node["ros__parameters"] for name, node in tree["/**"].items()}


def test_every_robot_has_an_example_and_controllers():
    for folder, suffix in ((EXAMPLES, ".launch.py"), (ROOT / "config" / "controllers", ".yaml")):
        names = {path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}
        assert names == set(known_robots())


@pytest.mark.parametrize("robot", known_robots())
def test_an_example_serves_its_robot_and_describes_its_arguments(robot):
    (deploy,) = (e for e in description(robot).entities if isinstance(e, IncludeLaunchDescription))
    passed = dict(deploy.launch_arguments)
    assert passed["robot"] == robot and set(passed) == {"policy", "robot"}
    assert location(deploy).endswith("launch/deploy.launch.py")
    arguments = description(robot).get_launch_arguments()
    assert {"driver", "policy", "robot", "namespace"} <= {a.name for a in arguments}
    assert all(argument.description for argument in arguments)


@pytest.mark.parametrize("robot", ARMS)
def test_a_controller_has_the_arms_joints_and_the_names_of_the_description(robot):
    described, nodes = load_robot(robot), controllers(robot)
    interfaces, manager = described.interfaces, nodes["controller_manager"]
    controller = interfaces.arm_trajectory_topic.split("/")[0]
    assert interfaces.arm_trajectory_topic == f"{controller}/joint_trajectory"
    assert interfaces.arm_trajectory_action == f"{controller}/follow_joint_trajectory"
    assert interfaces.arm_controller_state == f"{controller}/controller_state"
    assert tuple(nodes[controller]["joints"]) == described.arm_joints
    assert "JointTrajectoryController" in manager[controller]["type"]
    assert set(nodes[controller]["state_interfaces"]) == {"position", "velocity"}
    assert set(nodes[controller].get("gains", described.arm_joints)) == set(described.arm_joints)
    assert manager["joint_state_broadcaster"]["type"].endswith("/JointStateBroadcaster")
    for name in nodes:
        assert name == "controller_manager" or "type" in manager[name], name


@pytest.mark.parametrize("robot", ["ur5e", "so101"])
def test_streams_and_grippers_are_served_by_a_controller_of_the_file(robot):
    described, nodes = load_robot(robot), controllers(robot)
    stream, topic = described.interfaces.arm_stream_topic.split("/")
    assert topic == "commands" and tuple(nodes[stream]["joints"]) == described.arm_joints
    gripper, action = described.interfaces.gripper_action.split("/")
    assert action == "gripper_cmd"
    assert nodes[gripper]["joint"] == described.driver_gripper.driver_joint
    assert nodes["controller_manager"][gripper]["type"].endswith("GripperActionController")


def test_what_the_safety_section_listens_to_is_served_by_a_controller():
    franka, ur5e = load_robot("franka_fr3").safety, load_robot("ur5e").safety
    broadcaster, _ = franka.external_torque.topic.split("/")
    assert broadcaster in controllers("franka_fr3")["controller_manager"]
    status, _ = ur5e.robot_mode.topic.split("/")
    assert controllers("ur5e")["controller_manager"][status]["type"].endswith("GPIOController")


def test_a_base_is_limited_as_its_policies_were_trained():
    described, drive = load_robot("diff_base"), controllers("diff_base")["diff_drive_controller"]
    assert not drive["tf_frame_prefix_enable"], "a namespace is none of the frames' names"
    x, _, yaw = described.limits
    for key, limit in (("linear.x", x), ("angular.z", yaw)):
        assert drive[f"{key}.max_velocity"] == -drive[f"{key}.min_velocity"] == limit.velocity
        assert drive[f"{key}.max_acceleration"] == limit.acceleration
        assert drive[f"{key}.max_deceleration"] == -limit.acceleration
    assert (drive["odom_frame_id"], drive["base_frame_id"]) == (
        described.base_frame,
        described.tip_frame,
    )


def test_an_example_runs_as_far_as_a_policy_that_does_not_exist():
    command = [sys.executable, str(Path(__file__).parent / "launch_runner.py")]
    done = subprocess.run(
        [*command, str(EXAMPLES / "so101.launch.py"), "policy:=/nowhere.onnx"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "policy:=/nowhere.onnx; expected an ONNX file that exists" in done.stdout + done.stderr


@pytest.mark.parametrize("robot", ARMS)
def test_a_missing_driver_is_named_with_how_to_get_it(robot, monkeypatch):
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    package, _ = VENDOR[robot]
    with pytest.raises(MissingExtraError, match=f"'{package}', which is not found") as found:
        driver(robot, LaunchContext())
    assert "install" in found.value.remedy or "build" in found.value.remedy


def fake_package(prefix, package, launch_file=None):
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / package
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    folder = prefix / "share" / package / "launch"
    folder.mkdir(parents=True)
    if launch_file:
        (folder / launch_file).write_text(EMPTY)


@pytest.mark.parametrize("robot", ARMS)
def test_the_vendors_launch_gets_our_values_in_a_scope_of_its_own(robot, tmp_path, monkeypatch):
    fake_package(tmp_path, *VENDOR[robot])
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    context = LaunchContext()
    (group,) = driver(robot, context, namespace="left")
    assert isinstance(group, GroupAction)
    actions = group.get_sub_entities()
    (vendor,) = (a for a in actions if isinstance(a, IncludeLaunchDescription))
    assert location(vendor).endswith(f"launch/{VENDOR[robot][1]}")
    passed = dict(vendor.launch_arguments)
    assert set(GIVEN[robot].items()) <= set(passed.items())
    file = passed.get("controllers_yaml") or passed.get("controller_config_file")
    assert robot == "ur5e" or file == str(driver_launch.controllers_file(robot))
    spawned = [a for a in actions if isinstance(a, Node)]
    assert len(spawned) == (0 if robot == "ur5e" else 1)


def test_another_version_of_a_driver_without_the_launch_file_is_refused(tmp_path, monkeypatch):
    fake_package(tmp_path, "franka_bringup")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"no launch/franka.launch.py.*driver yourself"):
        driver("franka_fr3", LaunchContext())


def test_a_driver_needs_an_address_and_a_base_its_description(tmp_path, monkeypatch):
    context = LaunchContext()
    monkeypatch.setitem(GIVEN, "ur5e", {"robot_ip": ""})
    with pytest.raises(ConfigurationError, match="robot_ip is empty.*give robot_ip:="):
        driver("ur5e", context)
    with pytest.raises(ConfigurationError, match="description is empty"):
        driver("diff_base", LaunchContext())
    with pytest.raises(ConfigurationError, match="no such file"):
        driver("diff_base", LaunchContext(), description="/nowhere.urdf")
    urdf = tmp_path / "base.urdf"
    urdf.write_text("<robot/>")
    for package in ("controller_manager", "diff_drive_controller", "robot_state_publisher"):
        fake_package(tmp_path, package)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    (group,) = driver("diff_base", LaunchContext(), description=str(urdf))
    assert len(group.get_sub_entities()) >= 4
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    with pytest.raises(GrpoRosError, match="'controller_manager', which is not found"):
        driver("diff_base", LaunchContext(), description=str(urdf))
