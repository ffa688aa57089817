"""Serves a policy to a UR5e, with driver:=true starting Universal Robots' driver too.

ros2 launch grpo_ros ur5e.launch.py policy:=FILE.onnx driver:=true robot_ip:=192.168.56.101

The driver brings the arm's controllers, without a gripper's. A Robotiq gripper belongs into one
URDF and one controller_manager with the arm, which are yours to set up (config/controllers/
ur5e.yaml has the controllers of both) and to start instead of driver:=true: the gripper's own
launch file starts a second robot_state_publisher and a second /controller_manager, which take the
places of the arm's. On the teach pendant, run the program with External Control: only then does
the arm obey.
"""

from collections.abc import Mapping
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

from grpo_ros.nodes import driver_launch

ROBOT = "ur5e"
REMEDY = "sudo apt install ros-jazzy-ur"


def driver(values: Mapping[str, str]) -> list[Any]:
    """Return the driver's launch file; it activates the arm's controller itself."""
    arguments = {
        "ur_type": "ur5e",
        "robot_ip": driver_launch.required(values, "robot_ip", "the address of the robot"),
        "initial_joint_controller": "scaled_joint_trajectory_controller",
        "launch_rviz": "false",
    }
    if values["controllers_file"]:
        arguments["controllers_file"] = values["controllers_file"]
    return [driver_launch.include("ur_robot_driver", "ur_control.launch.py", arguments, REMEDY)]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return driver_launch.example(
        ROBOT,
        driver,
        [
            DeclareLaunchArgument(
                "robot_ip", default_value="", description="Address of the robot"
            ),
            DeclareLaunchArgument(
                "controllers_file",
                default_value="",
                description="ros2_control's controllers; empty: the driver's own",
            ),
        ],
    )
