"""Launch files: every argument is described, the common ones are there, RViz opens its view."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("launch_ros")
from ament_index_python.packages import PackageNotFoundError
from deploy_helpers import export_untrained
from launch import LaunchContext
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions

from grpo_ros.nodes import launching

pytestmark = pytest.mark.ros

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
FILES = sorted(path.relative_to(LAUNCH) for path in LAUNCH.rglob("*.launch.py"))
COMMON = {
    "namespace",
    "use_sim_time",
    "params_file",
    "log_level",
    "rviz",
    "discovery",
}
WITHOUT_NODES = {"evaluate", "protocol"}
"""What these start takes none of the arguments of nodes."""
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
        "autostart",
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
    common = {"discovery"} if name in WITHOUT_NODES else COMMON
    assert common | OWN[name] <= set(arguments)
    assert ("autostart" in arguments) == (name == "train"), "where nothing waits to be begun"
    assert all(len(argument.description) > 5 for argument in arguments.values())


class Noting(dict):
    """Values of arguments that notes which of them are asked for."""

    def __init__(self, values):
        super().__init__(values)
        self.asked = set()

    def __getitem__(self, name):
        self.asked.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize("name", sorted(WITHOUT_NODES))
def test_every_argument_of_what_starts_no_node_is_read(name):
    context = LaunchContext()
    source = PythonLaunchDescriptionSource(str(LAUNCH / f"{name}.launch.py"))
    description = source.get_launch_description(context)
    names = [argument.name for argument in description.get_launch_arguments()]
    values = Noting(dict.fromkeys(names, "1"))
    (function,) = (e for e in description.entities if isinstance(e, OpaqueFunction))
    launched = SimpleNamespace(launch_configurations=values)
    function._OpaqueFunction__function(launched)
    assert values.asked | {"discovery"} == set(names)  # which its own substitution reads


@pytest.mark.parametrize("name", ["deploy", "train", "simulate", "replay"])
def test_the_time_is_chosen_by_known_words_and_another_is_refused_by_name(name):
    (argument,) = (e for e in entities_of(f"{name}.launch.py") if declares(e, "use_sim_time"))
    words = ["true", "false", *(["auto"] if name == "deploy" else [])]
    for word in words:
        context = LaunchContext()
        context.launch_configurations["use_sim_time"] = word
        argument.execute(context)
    for word in {"True", "False", "yes", "", "auto"} - set(words):
        context = LaunchContext()
        context.launch_configurations["use_sim_time"] = word
        with pytest.raises(RuntimeError, match="use_sim_time.*not valid"):
            argument.execute(context)


def declares(entity, name):
    return isinstance(entity, DeclareLaunchArgument) and entity.name == name


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


@pytest.mark.parametrize(
    ("name", "arguments", "display", "frame"),
    [
        ("train", {"task": "navigate"}, "train", "odom"),
        ("simulate", {"task": "navigate"}, "deploy", "odom"),
        ("simulate", {"policy": "policy.onnx"}, "deploy", "base"),
        ("deploy", {"policy": "policy.onnx"}, "deploy", "base"),
        ("deploy", {"policy": "policy.onnx", "robot": "ur5e"}, "deploy", "base_link"),
    ],
)
def test_rviz_opens_what_belongs_to_a_launch_on_the_robots_base(
    tmp_path, monkeypatch, name, arguments, display, frame
):
    export_untrained(tmp_path / "policy.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["launch"])
    monkeypatch.setattr(launching, "get_package_prefix", lambda package: "")
    opened = []
    monkeypatch.setattr(launching, "Node", lambda **given: opened.append(given) or LogInfo(msg=""))
    source = PythonLaunchDescriptionSource(str(LAUNCH / f"{name}.launch.py"))
    context = LaunchContext()
    description = source.get_launch_description(context)
    for argument in description.get_launch_arguments():
        context.launch_configurations[argument.name] = arguments.get(
            argument.name
        ) or perform_substitutions(context, argument.default_value or [])
    context.launch_configurations["rviz"] = "true"
    (function,) = (e for e in description.entities if isinstance(e, OpaqueFunction))
    function.execute(context)
    (rviz,) = (given for given in opened if given["package"] == "rviz2")
    _, path, flag, found = rviz["arguments"]
    assert Path(path).name == f"{display}.rviz" and Path(path).is_file()
    assert (flag, found) == ("-f", frame)
    is_simulated = name != "train" and "robot" not in arguments
    assert rviz["parameters"] == [{"use_sim_time": is_simulated}]


def test_a_launch_goes_on_without_rviz_and_says_so(monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(launching, "get_package_prefix", missing)
    (said,) = launching.rviz({"rviz": "true"}, "deploy", lambda: "base")
    assert isinstance(said, LogInfo)
    assert launching.rviz({"rviz": "false"}, "deploy", lambda: pytest.fail("not asked")) == []
