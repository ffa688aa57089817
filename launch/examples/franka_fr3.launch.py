"""Serves a policy to a Franka Research 3, with driver:=true starting Franka's driver too.

ros2 launch grpo_ros franka_fr3.launch.py policy:=FILE.onnx driver:=true robot_ip:=172.16.0.2
"""

from collections.abc import Mapping
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from grpo_ros.nodes import driver_launch

ROBOT = "franka_fr3"
REMEDY = "build franka_ros2 (github.com/frankarobotics/franka_ros2) in your workspace, source it"


def driver(values: Mapping[str, str]) -> list[Any]:
    """Return Franka's launch file with our controllers, and what activates the arm's."""
    arguments = {
        "robot_type": "fr3",
        "robot_ip": driver_launch.required(values, "robot_ip", "the address of the robot"),
        "load_gripper": "true",
        "joint_state_rate": "100",
        "namespace": values.get("namespace", ""),
        "controllers_yaml": values["controllers_file"],
    }
    return [
        driver_launch.include("franka_bringup", "franka.launch.py", arguments, REMEDY),
        driver_launch.spawner(values, ["fr3_arm_controller"]),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return driver_launch.example(
        ROBOT,
        driver,
        [
            DeclareLaunchArgument(
                "robot_ip", default_value="", description="Address of the robot"
            ),
            driver_launch.controllers_argument(ROBOT),
        ],
    )
