"""Launch files: every argument is described, the common ones are there, RViz opens its view."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros")
from ament_index_python.packages import PackageNotFoundError
from deploy_helpers import export_untrained
from launch import LaunchContext
from launch.actions import LogInfo, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.utilities import perform_substitutions

from grpo_ros.nodes import launching

pytestmark = pytest.mark.ros

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
COMMON = {"namespace", "use_sim_time", "params_file", "autostart", "log_level", "rviz"}
OWN = {
    "train": {
        "task",
        "algorithm",
        "policy",
        "simulator",
        "placement",
        "group_size",
        "seed",
        "resume",
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


def test_a_launch_goes_on_without_rviz_and_says_so(monkeypatch):
    def missing(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(launching, "get_package_prefix", missing)
    (said,) = launching.rviz({"rviz": "true"}, "deploy", lambda: "base")
    assert isinstance(said, LogInfo)
    assert launching.rviz({"rviz": "false"}, "deploy", lambda: pytest.fail("not asked")) == []
