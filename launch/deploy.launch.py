"""Runs a policy on a robot: simulated, and counted episode by episode, or the real one.

ros2 launch grpo_ros deploy.launch.py policy:=FILE.onnx robot:=simulated episodes:=200
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes import launching
from grpo_ros.robots.robot import known_robots
from grpo_ros.simulators.registry import SIMULATORS
from grpo_ros.training.evaluation import HELD_OUT_SEED

SIMULATED = "simulated"
HARDWARE_WARNING = (
    "robot:={robot} is hardware. The safety gate of this version limits position, velocity and "
    "acceleration of joint targets and holds on stale observations; it is its first version and "
    "no certified safety function. Keep the emergency stop at hand. Next: ros2 lifecycle set "
    "/policy_server configure, then activate, then call ~/start."
)


def launch_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return what the arguments ask for."""
    values = context.launch_configurations
    policy = Path(values["policy"]).expanduser().resolve()
    if not policy.is_file():
        raise ConfigurationError(
            f"policy:={values['policy']}", expected="an ONNX file that exists"
        )
    if values["robot"] != SIMULATED:
        return on_hardware(values, str(policy))
    lock_step = launching.is_true("lock_step", values["lock_step"])
    episodes = launching.number("episodes", values["episodes"], int)
    series = {
        "policy": str(policy),
        "simulator": values["simulator"],
        "lock_step": lock_step,
        "real_time_factor": launching.number(
            "real_time_factor", values["real_time_factor"], float
        ),
        "seed": launching.number("seed", values["seed"], int),
        "first_episode": launching.number("first_episode", values["first_episode"], int),
    }
    server = {
        "policy": str(policy),
        "lock_step": lock_step,
        "autostart": values["autostart"] != "false",
        "use_sim_time": values["use_sim_time"] != "false",
    }
    outlive = launching.must_outlive
    nodes = [
        launching.node(values, "simulator_bridge", series, outlive("simulator_bridge")),
        launching.node(values, "policy_server", server, outlive("policy_server")),
        *launching.rviz(values),
    ]
    if episodes > 0:
        trials = {**series, "episodes": episodes}
        nodes.append(launching.node(values, "evaluator", trials, launching.decides("evaluator")))
    else:
        hint = "serving; next: call simulator_bridge/reset, then policy_server/start"
        nodes.append(LogInfo(msg=hint))
    return nodes


def on_hardware(values: dict[str, str], policy: str) -> list[LaunchDescriptionEntity]:
    """Return the policy server alone: the robot's driver offers the interfaces."""
    if launching.number("episodes", values["episodes"], int) > 0:
        raise ConfigurationError(
            f"episodes:={values['episodes']} with robot:={values['robot']}",
            expected="episodes:=0",
            remedy="episodes of hardware are begun and marked by hand: ~/start, ~/mark_outcome",
        )
    server = {
        "policy": policy,
        "robot": values["robot"],
        "lock_step": False,
        "autostart": values["autostart"] == "true",
        "use_sim_time": values["use_sim_time"] == "true",
    }
    return [
        LogInfo(msg=HARDWARE_WARNING.format(robot=values["robot"])),
        launching.node(values, "policy_server", server, launching.must_outlive("policy_server")),
        *launching.rviz(values),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy", description="ONNX file of the policy"),
            DeclareLaunchArgument(
                "robot",
                default_value=SIMULATED,
                choices=[SIMULATED, *known_robots()],
                description="simulated, or the hardware that the policy was trained for",
            ),
            DeclareLaunchArgument(
                "episodes", default_value="0", description="Episodes to count; 0: serve only"
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
                description="One control period per command: repeatable bit for bit",
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
            *launching.common_arguments(use_sim_time="auto"),
            OpaqueFunction(function=launch_nodes),
        ]
    )
