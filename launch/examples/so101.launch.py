"""Serves a policy to an SO-101, with driver:=true starting a driver of its servos too.

ros2 launch grpo_ros so101.launch.py policy:=FILE.onnx driver:=true usb_port:=/dev/ttyACM0
"""

from collections.abc import Mapping
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from grpo_ros.nodes import driver_launch

ROBOT = "so101"
REMEDY = "build so101-ros-physical-ai (github.com/legalaspro/so101-ros-physical-ai), source it"


def driver(values: Mapping[str, str]) -> list[Any]:
    """Return the driver's launch file with our controllers, and what activates the jaw's."""
    arguments = {
        "namespace": values.get("namespace", ""),
        "usb_port": driver_launch.required(values, "usb_port", "the serial port of the servos"),
        "controller_config_file": values["controllers_file"],
        "arm_controller": "arm_controller",
        "use_rviz": "false",
    }
    return [
        driver_launch.include("so101_bringup", "follower.launch.py", arguments, REMEDY),
        driver_launch.spawner(values, ["gripper_controller"]),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return driver_launch.example(
        ROBOT,
        driver,
        [
            DeclareLaunchArgument("usb_port", default_value="", description="Of the servos"),
            driver_launch.controllers_argument(ROBOT),
        ],
    )
