"""What the launch files of nodes share: common arguments, and an exit status that is true.

`ros2 launch` ends with 0 whatever its nodes end with; only an exception in a handler makes it 1.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, Substitution
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, SetEnvironmentVariable
from launch.events import Shutdown
from launch.launch_description_entity import LaunchDescriptionEntity
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from grpo_ros import presets
from grpo_ros.configuration import is_ros_file
from grpo_ros.errors import ConfigurationError

PACKAGE = "grpo_ros"
SIGTERM_TIMEOUT_S, SIGKILL_TIMEOUT_S = "20", "10"
BOOLEANS = ["true", "false"]
DISCOVERY_RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
ENCLAVES = "/grpo_ros"
"""Above the enclaves of our nodes, of which each process has its own."""
RANGES = ("localhost", "subnet", "system_default", "off")
INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a process that was asked to end, and did."""


class DiscoveryRange(Substitution):  # type: ignore[misc, unused-ignore]
    """How far nodes look for others: the argument, else the environment, else this machine."""

    def describe(self) -> str:
        """Return what it is, for messages."""
        return "DiscoveryRange()"

    def perform(self, context: LaunchContext) -> str:
        """Return the value of ROS_AUTOMATIC_DISCOVERY_RANGE."""
        given = context.launch_configurations.get("discovery", "")
        found: str = given or context.environment.get(DISCOVERY_RANGE, "") or RANGES[0]
        return found.upper()


def discovery() -> list[LaunchDescriptionEntity]:
    """Return what keeps the nodes that follow to this machine, and the argument that opens it."""
    return [
        DeclareLaunchArgument(
            "discovery",
            default_value="",
            choices=["", *RANGES],
            description="Who may find the nodes; empty: as ROS_AUTOMATIC_DISCOVERY_RANGE says, "
            "and localhost where it is not set",
        ),
        SetEnvironmentVariable(DISCOVERY_RANGE, DiscoveryRange()),
    ]


def common_arguments(
    use_sim_time: str = "true", of: str = "the nodes"
) -> list[LaunchDescriptionEntity]:
    """Return the arguments of launch files of nodes, named as in Nav2; see `discovery`.

    Args:
        use_sim_time: its default; "auto" where that is a value.
        of: what has its time from /clock then.
    """
    return [
        *discovery(),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes"),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value=use_sim_time,
            choices=[*BOOLEANS, *(["auto"] if use_sim_time == "auto" else [])],
            description=f"Time from /clock, of {of}"
            + ("; auto: where simulated" if use_sim_time == "auto" else ""),
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value="",
            description="Parameter file, above config/nodes/*.yaml",
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="Of all nodes"),
        DeclareLaunchArgument(
            "rviz", default_value="false", choices=BOOLEANS, description="Also start RViz"
        ),
    ]


def autostart(description: str) -> DeclareLaunchArgument:
    """Return the argument of launch files whose nodes can wait to be begun."""
    return DeclareLaunchArgument(
        "autostart", default_value="auto", choices=[*BOOLEANS, "auto"], description=description
    )


def node(
    values: Mapping[str, str],
    executable: str,
    parameters: Mapping[str, Any],
    on_exit: Callable[..., Any],
    sigterm_timeout_s: str = SIGTERM_TIMEOUT_S,
    *,
    name: str = "",
    files: Sequence[str] = (),
) -> Node:
    """Return one node of this package.

    Args:
        values: the launch arguments' values.
        executable: of the node, and of its parameter file.
        parameters: above the files, whatever these call the node.
        on_exit: called with the ProcessExited event and the launch context.
        sigterm_timeout_s: from SIGINT to SIGTERM.
        name: of the node; empty: the executable's.
        files: of config/nodes, above the node's own and below the user's.
    """
    used = [str(presets.node_parameters(file)) for file in (executable, *files)]
    if values["params_file"]:
        if not Path(values["params_file"]).is_file():
            raise ConfigurationError(
                f"params_file '{values['params_file']}'", expected="a YAML file that exists"
            )
        used.append(values["params_file"])
    typed = {
        key: ParameterValue(
            value, value_type=list[str] if isinstance(value, list) else type(value)
        )
        for key, value in parameters.items()
    }
    return Node(
        package=PACKAGE,
        executable=executable,
        # Of a parameter in several places rcl takes that under the node's full name, not the last
        # one: without a name here, `parameters` would stand below a file that names the node.
        name=name or executable,
        namespace=values["namespace"],
        parameters=[*used, typed],
        arguments=ros_arguments(values, executable),
        output="screen",
        emulate_tty=False,
        sigterm_timeout=sigterm_timeout_s,
        sigkill_timeout=SIGKILL_TIMEOUT_S,
        on_exit=on_exit,
    )


def ros_arguments(values: Mapping[str, str], executable: str) -> list[str]:
    """Return what ROS is told of a node: how much to log, and the enclave that it runs in."""
    enclave = f"{ENCLAVES}/{executable}"
    return ["--ros-args", "--log-level", values["log_level"], "--enclave", enclave]


def record_arguments() -> list[DeclareLaunchArgument]:
    """Return the arguments of what can be recorded."""
    return [
        DeclareLaunchArgument(
            "record",
            default_value="false",
            choices=BOOLEANS,
            description="Also record all topics but images into a bag",
        ),
        DeclareLaunchArgument(
            "record_folder",
            default_value="",
            description="Folder that the bag is made in; empty: recordings, beside policy or runs",
        ),
    ]


def recorder(
    values: Mapping[str, str],
    folder: Path,
    parameters: Mapping[str, Any],
    linger_s: float,
) -> list[Node]:
    """Return the recorder where it is asked for; a run goes on without it where it ends.

    Args:
        values: the launch arguments' values.
        folder: of bags, where none is given.
        parameters: of the recorder.
        linger_s: how long it goes on after a signal while others publish.
    """
    if values["record"] != "true":
        return []

    def on_exit(event: Any, context: Any) -> Sequence[Any]:
        if event.returncode == 0 or context.is_shutdown:
            return []
        text = f"recorder ended with exit code {event.returncode}: NOTHING IS RECORDED ANY MORE"
        return [LogInfo(msg=text)]

    given = {
        "folder": str(Path(values["record_folder"] or folder).expanduser().resolve()),
        "linger_s": linger_s,
        **parameters,
    }
    sigterm_timeout_s = str(linger_s + float(SIGTERM_TIMEOUT_S))
    return [node(values, "recorder", given, on_exit, sigterm_timeout_s)]


def must_outlive(name: str) -> Callable[..., Any]:
    """Return a handler for a node that has to run until the launch is shut down."""

    def on_exit(event: Any, context: Any) -> Sequence[Any]:
        if not context.is_shutdown or event.returncode not in (0, INTERRUPTED):
            raise RuntimeError(f"{name} ended with exit code {event.returncode}")
        return []

    return on_exit


def decides(name: str) -> Callable[..., Any]:
    """Return a handler for the node whose end is the end, and whose code is the launch's."""

    def on_exit(event: Any, context: Any) -> Sequence[Any]:
        is_interrupted = context.is_shutdown and event.returncode == INTERRUPTED
        if event.returncode != 0 and not is_interrupted:
            raise RuntimeError(f"{name} ended with exit code {event.returncode}")
        return [] if context.is_shutdown else [EmitEvent(event=Shutdown(reason=f"{name} is done"))]

    return on_exit


def rviz(
    values: Mapping[str, str], display: str, fixed_frame: Callable[[], str]
) -> list[LaunchDescriptionEntity]:
    """Return RViz where it is asked for and installed; all else goes on without it.

    Args:
        values: the launch arguments' values.
        display: which of config/rviz it opens.
        fixed_frame: gives the robot's base; empty: as the display says. Asked only for RViz.
    """
    if values["rviz"] != "true":
        return []
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        return [LogInfo(msg="rviz:=true, but rviz2 is not installed; going on without it")]
    path, frame = presets.share_directory() / "config" / "rviz" / f"{display}.rviz", fixed_frame()
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=values["namespace"],
            arguments=["-d", str(path), *(["-f", frame] if frame else [])],
            parameters=[{"use_sim_time": values["use_sim_time"] != "false"}],
        )
    ]


def browser_arguments() -> list[DeclareLaunchArgument]:
    """Return the arguments of launch files that offer the browser view."""
    return [
        DeclareLaunchArgument(
            "browser",
            default_value="false",
            choices=BOOLEANS,
            description="Also show it on a page of this machine, for any browser",
        ),
        DeclareLaunchArgument(
            "browser_port",
            default_value="",
            description="Of the page; empty: as the parameter file says (8080); 0: the next free",
        ),
    ]


def browser(values: Mapping[str, str]) -> list[Node]:
    """Return the browser view where it is asked for; the rest goes on whatever becomes of it."""
    if values["browser"] != "true":
        return []
    port = values["browser_port"]
    given = {"port": number("browser_port", port, int)} if port else {}
    files = values["params_file"]
    used = {**values, "params_file": files if files and is_ros_file(Path(files)) else ""}
    return [node(used, "browser_view", given, lambda *_: [])]


def number(name: str, value: str, kind: Callable[[str], Any]) -> Any:
    """Return a launch argument as a number."""
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"{name}:={value}", expected="a number") from None
