"""Serves a policy to a differential base, with driver:=true starting ros2_control for it too.

ros2 launch grpo_ros diff_base.launch.py policy:=FILE.onnx driver:=true description:=MY_BASE.urdf

The description is your base's URDF with its <ros2_control> system; the wheels' names and sizes go
into a copy of config/controllers/diff_base.yaml, given as controllers_file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes import driver_launch

ROBOT = "diff_base"
REMEDY = "sudo apt install ros-jazzy-ros2-control ros-jazzy-ros2-controllers"
REMAPS = "--remap ~/cmd_vel:=cmd_vel --remap ~/odom:=odom"


def driver(values: Mapping[str, str]) -> list[Any]:
    """Return a controller_manager with the base's description, and what activates its drive."""
    what = "your base's URDF with a <ros2_control> system"
    description = Path(driver_launch.required(values, "description", what)).expanduser()
    if not description.is_file():
        raise ConfigurationError(f"description:={description}", expected=f"{what}; no such file")
    for package in ("controller_manager", "diff_drive_controller", "robot_state_publisher"):
        driver_launch.package_share(package, REMEDY)
    namespace = values.get("namespace", "")
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            namespace=namespace,
            parameters=[{"robot_description": description.read_text()}],
        ),
        Node(
            package="controller_manager",
            executable="ros2_control_node",
            namespace=namespace,
            parameters=[values["controllers_file"]],
            output="screen",
        ),
        driver_launch.spawner(values, ["joint_state_broadcaster"]),
        driver_launch.spawner(values, ["diff_drive_controller"], REMAPS),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return driver_launch.example(
        ROBOT,
        driver,
        [
            DeclareLaunchArgument(
                "description", default_value="", description="URDF of your base, with ros2_control"
            ),
            driver_launch.controllers_argument(ROBOT),
        ],
    )
