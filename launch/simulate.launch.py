"""Starts a simulated robot alone, behind its ROS interfaces.

ros2 launch grpo_ros simulate.launch.py task:=pick_place
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from grpo_ros.configuration import load_config, section
from grpo_ros.deployment.matching import trained_robot
from grpo_ros.export.policy_file import read_contract
from grpo_ros.nodes import launching
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.registry import SIMULATORS
from grpo_ros.tasks.registry import TASKS, make_task
from grpo_ros.training.evaluation import HELD_OUT_SEED


def launch_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return what the arguments ask for."""
    values = context.launch_configurations
    policy = values["policy"] and str(Path(values["policy"]).expanduser().resolve())
    parameters = {
        "task": values["task"],
        "policy": policy,
        "simulator": values["simulator"],
        "lock_step": values["lock_step"] == "true",
        "real_time_factor": launching.number(
            "real_time_factor", values["real_time_factor"], float
        ),
        "seed": launching.number("seed", values["seed"], int),
        "first_episode": launching.number("first_episode", values["first_episode"], int),
    }
    on_exit = launching.decides("simulator_bridge")  # it may be set to quit
    return [
        launching.node(values, "simulator_bridge", parameters, on_exit),
        *launching.rviz(values, "deploy", lambda: robot_of(values["task"], policy).base_frame),
    ]


def robot_of(task: str, policy: str) -> Robot:
    """Return the robot that is simulated: the policy's, or the task's."""
    if policy:
        return trained_robot(read_contract(policy))
    return make_task(task, section(load_config([f"task={task}"]), "task")).robot


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "task", default_value="pick_place", choices=list(TASKS), description="What is done"
            ),
            DeclareLaunchArgument(
                "policy",
                default_value="",
                description="ONNX file whose task, and its settings, are simulated instead",
            ),
            DeclareLaunchArgument(
                "simulator",
                default_value="",
                choices=["", *SIMULATORS],
                description="Engine of the simulated robot; empty: the policy's run's, or mujoco",
            ),
            DeclareLaunchArgument(
                "lock_step",
                default_value="false",
                choices=launching.BOOLEANS,
                description="One control period per stamped command",
            ),
            DeclareLaunchArgument(
                "real_time_factor",
                default_value="1.0",
                description="Simulated over wall-clock time, where not in lock step",
            ),
            DeclareLaunchArgument(
                "seed", default_value=str(HELD_OUT_SEED), description="Of the initial states"
            ),
            DeclareLaunchArgument(
                "first_episode", default_value="0", description="Number of the first initial state"
            ),
            *launching.common_arguments(of="RViz"),
            OpaqueFunction(function=launch_nodes),
        ]
    )
