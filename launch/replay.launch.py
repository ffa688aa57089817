"""Shows a failed rollout of a run over and over, as training is shown.

ros2 launch grpo_ros replay.launch.py rollout:=12/3/5 browser:=true
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from grpo_ros.nodes import launching
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.failures.of_run import ReplayedRun


def launch_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return what the arguments ask for; a run that is none is found here."""
    values = context.launch_configurations
    run = ReplayedRun(Path(values["run"]).expanduser().resolve())
    parameters = {
        "run": str(run.path),
        "rollout": values["rollout"],
        "members": launching.number("members", values["members"], int),
        "real_time_factor": launching.number(
            "real_time_factor", values["real_time_factor"], float
        ),
    }
    task = make_task(run.config.task, run.task_settings)
    base = "" if isinstance(task, EnvironmentTask) else task.robot.base_frame
    on_exit = launching.must_outlive("rollout_player")
    return [
        launching.node(values, "rollout_player", parameters, on_exit, name="simulator_bridge"),
        *launching.rviz(values, "train", lambda: base),
        *launching.browser(values),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("run", default_value="runs/latest", description="Run's folder"),
            DeclareLaunchArgument(
                "rollout",
                default_value="",
                description="iteration/group/member, or heldout/NUMBER; empty: the newest failure",
            ),
            DeclareLaunchArgument(
                "members", default_value="8", description="New rollouts from each moment; 0: none"
            ),
            DeclareLaunchArgument(
                "real_time_factor", default_value="1.0", description="Over wall-clock time"
            ),
            *launching.browser_arguments(),
            *launching.common_arguments(use_sim_time="false", of="RViz"),
            OpaqueFunction(function=launch_nodes),
        ]
    )
