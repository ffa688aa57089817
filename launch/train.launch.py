"""Trains a policy, to be watched and steered over ROS meanwhile.

ros2 launch grpo_ros train.launch.py task:=pick_place algorithm:=grpo group_size:=8 seed:=0
"""

import json
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node

from grpo_ros import presets, typed
from grpo_ros.configuration import config_hash, is_ros_file, load_config, section
from grpo_ros.nodes import launching
from grpo_ros.robots.robot import Robot
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.settings import SECTIONS_BY_SELECTOR, TrainConfig

SIGTERM_TIMEOUT_S, SIGKILL_TIMEOUT_S = "180", "60"
LINGER_S = 170.0
"""After Ctrl-C the iteration is finished and saved; an evaluation or a report may be under way."""
BRIDGE, RESPAWN_DELAY_S = "batch_bridge", 0.5
OWN = (
    "task",
    "difficulty",
    "algorithm",
    "policy",
    "policy_path",
    "simulator",
    "placement",
    "group_size",
    "seed",
    "resume",
)
COMMON = (
    "namespace",
    "use_sim_time",
    "params_file",
    "autostart",
    "log_level",
    "rviz",
    "browser",
    "browser_port",
    "settings",
    "discovery",
    "record",
    "record_folder",
)


def settings_of(values: dict[str, str]) -> list[str]:
    """Return what was asked for as `key=value`: named arguments, `settings`, any other key."""
    found = [f"{name}={values[name]}" for name in OWN if values[name]]
    found += values["settings"].split()
    # Not from the context, where another launch file's values may be; nor from the command line
    # of another launch file, which includes this one and has arguments of its own.
    words = sys.argv if any(Path(word).name == Path(__file__).name for word in sys.argv) else []
    for text in words:
        name, is_argument, value = text.partition(":=")
        if is_argument and name not in (*OWN, *COMMON):
            found.append(f"{name}={value}")
    return found


def launch_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return what the arguments ask for; a mistake in them is found here, not in the node."""
    values = context.launch_configurations
    settings = settings_of(values)
    config = load_config(settings, values["params_file"] or None)
    arguments, files = [*settings], [str(presets.node_parameters("learner"))]
    if params_file := values["params_file"]:
        if is_ros_file(Path(params_file)):
            files.append(params_file)
        else:
            arguments += ["--config", params_file]
    if values["autostart"] == "false":
        arguments.append("--paused")
    bridges = []
    if config.bridge.placement == "separate" and not config.bridge.attach:
        bridges = [batch_bridge(values, settings)]
        arguments.insert(0, f"bridge.attach={BRIDGE}")
    learner = Node(
        package=launching.PACKAGE,
        executable="learner",
        namespace=values["namespace"],
        parameters=[*files, {"use_sim_time": values["use_sim_time"] == "true"}],
        arguments=[*arguments, *launching.ros_arguments(values, "learner")],
        output="screen",
        emulate_tty=False,
        sigterm_timeout=SIGTERM_TIMEOUT_S,
        sigkill_timeout=SIGKILL_TIMEOUT_S,
        on_exit=launching.decides("learner"),
    )
    robot = robot_of(config)
    base = "" if robot is None else robot.base_frame
    return [
        *recorder(values, config),
        *bridges,
        learner,
        *launching.rviz(values, "train", lambda: base),
        *launching.browser(values),
    ]


def recorder(values: dict[str, str], config: TrainConfig) -> list[LaunchDescriptionEntity]:
    """Return the recorder where it is asked for; it comes first, to be there in time."""
    robot = robot_of(config)
    about = {
        "task": config.task,
        "robot": "" if robot is None else robot.name,
        "algorithm": config.algorithm,
        "seed": config.seed,
        "config_sha256": config_hash(config),
        "settings": json.dumps(typed.encode(config)),
    }
    params_file = values["params_file"]
    if params_file and not is_ros_file(Path(params_file)):
        values = {**values, "params_file": ""}
    named = {"about": [f"{key}={value}" for key, value in about.items()]}
    return [*launching.recorder(values, Path(config.output) / "recordings", named, LINGER_S)]


def robot_of(config: TrainConfig) -> Robot | None:
    """Return the task's robot; None where an environment's is not known here."""
    task = make_task(config.task, section(config, "task"))
    return None if isinstance(task, EnvironmentTask) else task.robot


def batch_bridge(values: dict[str, str], settings: list[str]) -> Node:
    """Return the node that owns the simulator; it is started again whenever it dies."""
    params_file = values["params_file"]
    return Node(
        package=launching.PACKAGE,
        executable=BRIDGE,
        namespace=values["namespace"],
        arguments=[
            *settings,
            *(["--config", params_file] if params_file else []),
            *launching.ros_arguments(values, BRIDGE),
        ],
        output="screen",
        emulate_tty=False,
        sigterm_timeout=SIGTERM_TIMEOUT_S,
        sigkill_timeout=SIGKILL_TIMEOUT_S,
        respawn=True,
        respawn_delay=RESPAWN_DELAY_S,
    )


def choices(name: str) -> list[str] | None:
    """Return what an argument may be; a task may also be an environment, which no list holds."""
    return None if name == "task" else ["", *SECTIONS_BY_SELECTOR[name]]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    described = {
        "task": "What is to be done",
        "algorithm": "How it is learned",
        "policy": "What decides",
        "simulator": "Where it happens",
    }
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value="",
                    choices=choices(name),
                    description=f"{text}; empty: as the parameter file or the default says",
                )
                for name, text in described.items()
            ),
            DeclareLaunchArgument(
                "difficulty", default_value="", description="easy | medium | hard, of the task"
            ),
            DeclareLaunchArgument(
                "placement",
                default_value="",
                choices=["", "composed", "separate"],
                description="separate: the simulator in a process of its own, which is started "
                "again when it dies; results are the same",
            ),
            DeclareLaunchArgument(
                "policy_path", default_value="", description="Checkpoint of policy:=gr00t"
            ),
            DeclareLaunchArgument(
                "group_size", default_value="", description="Rollouts from each initial state"
            ),
            DeclareLaunchArgument("seed", default_value="", description="Of everything random"),
            DeclareLaunchArgument(
                "resume",
                default_value="",
                description="auto: the newest unfinished run of the same settings, if there is "
                "one | never | a run's folder",
            ),
            DeclareLaunchArgument(
                "settings",
                default_value="",
                description="Any other settings, 'key=value key=value'; they may also be given "
                "as arguments of their own (collection.env_steps:=200000)",
            ),
            *launching.record_arguments(),
            *launching.common_arguments(use_sim_time="false"),
            launching.autostart("false: the learner waits, paused, until ~/pause says go on"),
            *launching.browser_arguments(),
            OpaqueFunction(function=launch_nodes),
        ]
    )
