"""Measures a policy on held-out initial states in the simulator, without ROS on the path.

ros2 launch grpo_ros evaluate.launch.py policy:=FILE.onnx episodes:=1000
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from grpo_ros.nodes import launching
from grpo_ros.training.evaluation import HELD_OUT_SEED


def launch_evaluation(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the process that evaluates; its exit code becomes the launch's."""
    values = context.launch_configurations
    command = [sys.executable, "-m", "grpo_ros.cli", "evaluate", values["policy"]]
    command += ["--episodes", str(launching.number("episodes", values["episodes"], int))]
    command += ["--seed", str(launching.number("seed", values["seed"], int))]
    if values["output"]:
        command += ["--output", values["output"]]
    return [
        ExecuteProcess(
            cmd=command, output="screen", name="evaluate", on_exit=launching.decides("evaluate")
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy", description="ONNX file of the policy"),
            DeclareLaunchArgument(
                "episodes", default_value="1000", description="How many held-out initial states"
            ),
            DeclareLaunchArgument(
                "seed", default_value=str(HELD_OUT_SEED), description="Of the initial states"
            ),
            DeclareLaunchArgument(
                "output",
                default_value="",
                description="JSON file of the result; empty: evaluations/<date>.json beside it",
            ),
            *launching.discovery(),
            OpaqueFunction(function=launch_evaluation),
        ]
    )
