"""Runs a policy on a robot: simulated, and counted episode by episode, or the real one.

ros2 launch grpo_ros deploy.launch.py policy:=FILE.onnx robot:=simulated episodes:=200
"""

from pathlib import Path
from typing import get_args

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity

from grpo_ros.deployment.matching import trained_robot
from grpo_ros.errors import ConfigurationError
from grpo_ros.export.policy_file import read_contract
from grpo_ros.nodes import launching
from grpo_ros.robots.description import ArmCommand
from grpo_ros.robots.robot import known_robots, load_robot
from grpo_ros.simulators.registry import SIMULATORS
from grpo_ros.training.evaluation import HELD_OUT_SEED

SIMULATED, ISAAC_SIM = "simulated", "isaac_sim"
ON_HARDWARE = "policy_server_hardware"
"""File of config/nodes: defaults of a real robot."""
NO_SWITCH = "none"
LINGER_S = 10.0
HARDWARE_WARNING = (
    "robot:={robot} is hardware, at {percent:g} % of the trained speed. The safety gate is no "
    "certified safety function: keep the emergency stop at hand. {enable}"
)


def launch_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return what the arguments ask for."""
    values = context.launch_configurations
    policy = Path(values["policy"]).expanduser().resolve()
    check_robot(values["robot"])
    if not policy.is_file():
        raise ConfigurationError(
            f"policy:={values['policy']}", expected="an ONNX file that exists"
        )
    if values["robot"] != SIMULATED:
        return on_robot(values, str(policy))
    lock_step = values["lock_step"] == "true"
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
        **given_settings(values),
    }
    if values["speed"]:
        server["runner.speed"] = launching.number("speed", values["speed"], float)
    outlive = launching.must_outlive
    nodes = [
        *recorder(values, policy),
        launching.node(values, "simulator_bridge", series, outlive("simulator_bridge")),
        launching.node(values, "policy_server", server, outlive("policy_server")),
        *launching.rviz(values, "deploy", lambda: trained_robot(read_contract(policy)).base_frame),
        *launching.browser(values),
    ]
    if episodes > 0:
        trials = {**series, "episodes": episodes}
        nodes.append(launching.node(values, "evaluator", trials, launching.decides("evaluator")))
    else:
        hint = "serving; next: call simulator_bridge/reset, then policy_server/start"
        nodes.append(LogInfo(msg=hint))
    return nodes


def recorder(values: dict[str, str], policy: Path) -> list[LaunchDescriptionEntity]:
    """Return the recorder where it is asked for; it comes first, to be there in time."""
    about = [f"robot={values['robot']}"] if values["robot"] != SIMULATED else []
    named = {"policy": str(policy), "about": about or [""]}
    return [*launching.recorder(values, policy.parent / "recordings", named, LINGER_S)]


def check_robot(name: str) -> None:
    """Raise RobotError where there is no robot of that name, and no folder of one."""
    if name not in (SIMULATED, ISAAC_SIM):
        load_robot(name)


def given_settings(values: dict[str, str]) -> dict[str, object]:
    """Return the policy server's parameters that arguments give; without one a file says it."""
    found: dict[str, object] = {}
    if values["dry_run"]:
        found["dry_run"] = values["dry_run"] == "true"
    if values["command"]:
        found["command"] = values["command"]
    return found


def on_robot(values: dict[str, str], policy: str) -> list[LaunchDescriptionEntity]:
    """Return the policy server alone: the robot's driver, or Isaac Sim, offers the interfaces."""
    if launching.number("episodes", values["episodes"], int) > 0:
        raise ConfigurationError(
            f"episodes:={values['episodes']} with robot:={values['robot']}",
            expected="episodes:=0",
            remedy="runs on a robot are begun and marked by hand: ~/start, ~/mark_outcome",
        )
    if values["lock_step"] == "true":
        raise ConfigurationError(
            f"lock_step:=true with robot:={values['robot']}",
            expected="lock_step:=false",
            remedy="only the simulated robot waits for each command",
        )
    is_real = values["robot"] != ISAAC_SIM
    auto = "false" if is_real else "true"
    values = dict(values)
    for name in ("use_sim_time", "autostart"):
        values[name] = auto if values[name] == "auto" else values[name]
    speed = launching.number("speed", values["speed"] or ("0.1" if is_real else "1.0"), float)
    server = {
        "policy": policy,
        "robot": values["robot"] if is_real else "",
        "lock_step": False,
        "autostart": values["autostart"] == "true",
        "use_sim_time": values["use_sim_time"] == "true",
        **given_settings(values),
        "runner.speed": speed,
    }
    enable_topic = "" if values["enable_topic"] == NO_SWITCH else values["enable_topic"]
    if is_real:
        server.update({"hardware": True, "runner.faults.enable_topic": enable_topic})
    elif not values["command"]:
        server["command"] = "joint_command"
    warning = ""
    if is_real:
        enable = (
            f"It moves only while {enable_topic} (std_msgs/Bool) is true and fresh. "
            if enable_topic
            else "NO ENABLE SWITCH is asked for. "
        )
        warning = HARDWARE_WARNING.format(
            robot=values["robot"], percent=100.0 * speed, enable=enable
        )

    def base_frame() -> str:
        robot = load_robot(values["robot"]) if is_real else trained_robot(read_contract(policy))
        return robot.base_frame

    server_name = f"/{values['namespace'].strip('/')}/policy_server".replace("//", "/")
    start = f"call {server_name}/start."
    if values["autostart"] == "false":
        start = f"ros2 lifecycle set {server_name} configure, then activate, then {start}"
    return [
        LogInfo(msg=f"{warning}Next: {start}"),
        *recorder(values, Path(policy)),
        launching.node(
            values,
            "policy_server",
            server,
            launching.must_outlive("policy_server"),
            files=[ON_HARDWARE] if is_real else [],
        ),
        *launching.rviz(values, "deploy", base_frame),
        *launching.browser(values),
    ]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what they launch."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("policy", description="ONNX file of the policy"),
            DeclareLaunchArgument(
                "robot",
                default_value=SIMULATED,
                description=f"{SIMULATED}; {ISAAC_SIM}, one that runs; or the hardware that the "
                f"policy was trained for: {', '.join(known_robots())}, or a robot.yaml's folder",
            ),
            DeclareLaunchArgument(
                "speed",
                default_value="",
                description="Share of the trained speed; empty: 0.1 on hardware, whatever a "
                "parameter file says; else as it says (1)",
            ),
            DeclareLaunchArgument(
                "enable_topic",
                default_value="enable",
                description="Hardware: std_msgs/Bool that has to be true, in a dry run too; "
                f"{NO_SWITCH}: no switch",
            ),
            DeclareLaunchArgument(
                "command",
                default_value="",
                choices=["", *get_args(ArmCommand)],
                description="What carries the commands; empty: as the parameter file says, "
                "else the robot description",
            ),
            DeclareLaunchArgument(
                "dry_run",
                default_value="",
                choices=["", *launching.BOOLEANS],
                description="Do everything but command; empty: as the parameter file says (false)",
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
            *launching.record_arguments(),
            *launching.common_arguments(use_sim_time="auto", of="the policy server and RViz"),
            launching.autostart(
                "Configure and activate the policy server at once; auto: where simulated"
            ),
            *launching.browser_arguments(),
            OpaqueFunction(function=launch_nodes),
        ]
    )
