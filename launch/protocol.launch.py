"""Compares algorithms on equal terms, and writes a report; goes on where it was stopped.

ros2 launch grpo_ros protocol.launch.py phases:=1,2,3
ros2 launch grpo_ros protocol.launch.py quick:=true
"""

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from grpo_ros.nodes import launching

SIGTERM_TIMEOUT_S, SIGKILL_TIMEOUT_S = "300", "60"
"""After Ctrl-C each run finishes its iteration and saves, and the report is written."""


def launch_protocol(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the process that runs the study; its exit code becomes the launch's."""
    values = context.launch_configurations
    command = [sys.executable, "-m", "grpo_ros", "protocol"]
    for name in ("study", "phases", "tasks", "seeds", "workers", "output"):
        if values[name]:
            command += [f"--{name}", values[name]]
    if values["quick"] == "true":
        command.append("--quick")
    command += values["settings"].split()
    return [
        ExecuteProcess(
            cmd=command,
            output="screen",
            name="protocol",
            sigterm_timeout=SIGTERM_TIMEOUT_S,
            sigkill_timeout=SIGKILL_TIMEOUT_S,
            on_exit=launching.decides("protocol"),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    described = {
        "study": "full | quick | gr00t, or a YAML file; empty: full",
        "phases": "1: PPO; 2: GRPO; 3: hybrids and exact states; empty: all",
        "tasks": "Of the study, as a,b; empty: all",
        "seeds": "How many of each arm; empty: as the study says",
        "workers": "Runs at a time, one a core; empty: as many as there are cores",
        "output": "Folder of runs and report; empty: studies/<study>",
        "settings": "Of all runs, 'key=value key=value'",
    }
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value="", description=text)
                for name, text in described.items()
            ),
            DeclareLaunchArgument(
                "quick",
                default_value="false",
                choices=["true", "false"],
                description="15 minutes on 2 cores, and little to conclude",
            ),
            *launching.discovery(),
            OpaqueFunction(function=launch_protocol),
        ]
    )
