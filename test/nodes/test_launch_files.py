"""Launch files: every argument is described, and the common ones are there."""

from pathlib import Path

import pytest

pytest.importorskip("launch_ros")
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource

from grpo_ros.nodes import launching

pytestmark = pytest.mark.ros

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
FILES = sorted(path.relative_to(LAUNCH) for path in LAUNCH.rglob("*.launch.py"))
COMMON = {
    "namespace",
    "use_sim_time",
    "params_file",
    "autostart",
    "log_level",
    "rviz",
    "discovery",
}
OWN = {
    "replay": {"run", "rollout", "members"},
    "train": {
        "task",
        "algorithm",
        "policy",
        "simulator",
        "placement",
        "group_size",
        "seed",
        "resume",
        "browser",
        "browser_port",
        "record",
        "record_folder",
    },
    "evaluate": {"policy", "episodes", "seed"},
    "protocol": {"study", "quick", "phases", "tasks", "seeds", "workers", "output", "settings"},
}


@pytest.mark.parametrize("name", OWN)
def test_every_argument_is_described(name):
    source = PythonLaunchDescriptionSource(str(LAUNCH / f"{name}.launch.py"))
    description = source.get_launch_description(LaunchContext())
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert COMMON | OWN[name] <= set(arguments)
    assert all(len(argument.description) > 5 for argument in arguments.values())


def entities_of(path):
    source = PythonLaunchDescriptionSource(str(LAUNCH / path))
    return source.get_launch_description(LaunchContext()).entities


@pytest.mark.parametrize("path", FILES, ids=str)
@pytest.mark.parametrize(
    ("environment", "argument", "expected"),
    [
        (None, "", "LOCALHOST"),
        ("", "", "LOCALHOST"),
        ("OFF", "", "OFF"),
        ("SUBNET", "", "SUBNET"),
        ("SUBNET", "localhost", "LOCALHOST"),
        ("LOCALHOST", "subnet", "SUBNET"),
        (None, "system_default", "SYSTEM_DEFAULT"),
    ],
)
def test_nodes_are_found_on_this_machine_alone_unless_somebody_says_otherwise(
    path, environment, argument, expected, monkeypatch
):
    monkeypatch.setenv(launching.DISCOVERY_RANGE, environment or "")
    if environment is None:
        monkeypatch.delenv(launching.DISCOVERY_RANGE)
    context = LaunchContext()
    context.launch_configurations["discovery"] = argument
    before_nodes = []
    for entity in entities_of(path):
        if not isinstance(entity, DeclareLaunchArgument | SetEnvironmentVariable):
            break
        before_nodes.append(entity)
    (found,) = (e for e in before_nodes if isinstance(e, SetEnvironmentVariable))
    found.execute(context)
    assert context.environment[launching.DISCOVERY_RANGE] == expected
    (declared,) = (e for e in before_nodes if getattr(e, "name", "") == "discovery")
    assert set(declared.choices) == {"", *launching.RANGES}


def test_every_process_has_an_enclave_of_its_own():
    arguments = launching.ros_arguments({"log_level": "info"}, "policy_server")
    assert arguments[-2:] == ["--enclave", "/grpo_ros/policy_server"]
