"""Parameter files and launch files of deployment say what the nodes really take."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy  # noqa: E402
from launch import LaunchContext  # noqa: E402
from launch.actions import DeclareLaunchArgument, LogInfo  # noqa: E402
from launch.utilities import perform_substitutions  # noqa: E402
from rclpy.node import Node  # noqa: E402

from grpo_ros import presets, typed  # noqa: E402
from grpo_ros.errors import ConfigurationError  # noqa: E402
from grpo_ros.nodes import launching  # noqa: E402
from grpo_ros.nodes.browser_view import BrowserViewConfig  # noqa: E402
from grpo_ros.nodes.evaluator import EvaluatorConfig  # noqa: E402
from grpo_ros.nodes.policy_server import PolicyServerConfig  # noqa: E402
from grpo_ros.nodes.recorder import RecorderConfig  # noqa: E402
from grpo_ros.nodes.shared.parameters import read_parameters  # noqa: E402
from grpo_ros.nodes.simulated.bridge_config import SimulatorBridgeConfig  # noqa: E402

pytestmark = pytest.mark.ros
NAV2 = {"namespace", "use_sim_time", "params_file", "log_level", "rviz"}


def load_launch(name: str) -> object:
    path = presets.share_directory() / "launch" / name
    spec = importlib.util.spec_from_file_location(name.removesuffix(".launch.py"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("node", "config"),
    [
        ("policy_server", PolicyServerConfig()),
        ("simulator_bridge", SimulatorBridgeConfig()),
        ("evaluator", EvaluatorConfig()),
        ("browser_view", BrowserViewConfig()),
        ("recorder", RecorderConfig()),
    ],
)
def test_parameter_files_hold_every_parameter_with_its_default(node: str, config: object) -> None:
    tree = yaml.safe_load(presets.node_parameters(node).read_text())
    assert tree["/**"]["ros__parameters"] == typed.encode(config)


@pytest.mark.parametrize(
    ("name", "named"), [("deploy.launch.py", {*NAV2, "autostart"}), ("simulate.launch.py", NAV2)]
)
def test_launch_files_take_arguments_named_as_in_nav2(name: str, named: set[str]) -> None:
    description = load_launch(name).generate_launch_description()
    arguments = [e for e in description.entities if isinstance(e, DeclareLaunchArgument)]
    assert {argument.name for argument in arguments} >= named
    assert all(argument.description for argument in arguments)


def launched(name: str, **given: str) -> list[object]:
    module = load_launch(name)
    context = LaunchContext()
    for entity in module.generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            default = "".join(part.perform(context) for part in entity.default_value or ())
            context.launch_configurations[entity.name] = default
    context.launch_configurations.update(given)
    return module.launch_nodes(context)


def test_hardware_gets_the_policy_server_alone_and_a_warning(tmp_path: Path) -> None:
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(b"x")
    entities = launched("deploy.launch.py", policy=str(policy), robot="franka_fr3")
    said = text_of(entities[0])
    assert len(entities) == 2 and "10 % of the trained speed" in said
    assert "Next: ros2 lifecycle set /policy_server configure" in said
    with pytest.raises(ConfigurationError, match="episodes:=0"):
        launched("deploy.launch.py", policy=str(policy), robot="franka_fr3", episodes="5")
    assert len(launched("deploy.launch.py", policy=str(policy), episodes="5")) == 3


def text_of(entity: LogInfo) -> str:
    return perform_substitutions(LaunchContext(), entity.msg)


def test_an_isaac_sim_that_runs_is_served_at_once_and_in_no_lock_step(tmp_path: Path) -> None:
    """Regression: with autostart:=auto, which says "where simulated", it stayed unconfigured."""
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(b"x")
    given = {"policy": str(policy), "robot": "isaac_sim", "namespace": "left"}
    (hint, node) = launched("deploy.launch.py", **given)
    config = given_to(node, PolicyServerConfig())
    assert config.autostart and config.command == "joint_command" and not config.hardware
    assert text_of(hint) == "Next: call /left/policy_server/start."
    (hint, node) = launched("deploy.launch.py", autostart="false", **given)
    assert not given_to(node, PolicyServerConfig()).autostart
    assert "ros2 lifecycle set /left/policy_server configure" in text_of(hint)
    with pytest.raises(ConfigurationError, match="lock_step:=true"):
        launched("deploy.launch.py", lock_step="true", **given)


def test_training_takes_no_arguments_of_a_launch_file_that_includes_it(monkeypatch: Any) -> None:
    """Regression: robot:=ur5e of the including file changed what was trained."""
    values = {**dict.fromkeys(load_launch("train.launch.py").OWN, ""), "settings": "a=1"}
    words = ["train.launch.py", "task:=reach", "robot:=ur5e", "collection.env_steps:=7"]
    found = {}
    for path in ("/opt/train.launch.py", "/opt/mine.launch.py"):
        monkeypatch.setattr("sys.argv", ["ros2", "launch", path, *words[1:]])
        found[path] = load_launch("train.launch.py").settings_of(values)
    assert found["/opt/train.launch.py"] == ["a=1", "robot=ur5e", "collection.env_steps=7"]
    assert found["/opt/mine.launch.py"] == ["a=1"]


def given_to(node: Any, config: Any) -> Any:
    """What a node that a launch file starts reads of its parameters."""
    context = LaunchContext()
    node._perform_substitutions(context)
    namespace = f"__ns:={node.expanded_node_namespace or '/'}"
    found = {"ns": namespace, "name": f"__node:={node.node_name.rsplit('/', 1)[-1]}"}
    context.extend_locals({"ros_specific_arguments": found})
    words = [perform_substitutions(context, part) for part in node.cmd][1:]
    own = rclpy.Context()
    rclpy.init(args=words, context=own)
    try:
        made = Node(node.node_executable, context=own, start_parameter_services=False)
        try:
            return read_parameters(made, config, read_only=False)
        finally:
            made.destroy_node()
    finally:
        rclpy.shutdown(context=own)


SHIPPED = presets.node_parameters("policy_server").read_text()


@pytest.mark.parametrize(
    "key", ["/**", "policy_server", "/policy_server", "/arm1/policy_server", "/*/policy_server"]
)
def test_a_parameter_file_cannot_undo_what_hardware_is_started_with(
    tmp_path: Path, key: str
) -> None:
    """A copy of the shipped file, with one value changed: its speed is that of a simulation."""
    (policy := tmp_path / "policy.onnx").write_bytes(b"x")
    (file := tmp_path / "mine.yaml").write_text(
        SHIPPED.replace("/**:", f"{key}:").replace("ramp_in_s: 0.0", "ramp_in_s: 4.0")
    )
    common = {"policy": str(policy), "robot": "franka_fr3", "namespace": "arm1"}
    for given, speed, enable, is_dry in (
        ({}, 0.1, "enable", False),
        ({"speed": "0.05", "enable_topic": "deadman", "dry_run": "true"}, 0.05, "deadman", True),
        ({"enable_topic": "none"}, 0.1, "", False),
    ):
        warning, node = launched("deploy.launch.py", **common, params_file=str(file), **given)
        read = given_to(node, PolicyServerConfig())
        assert (read.runner.speed, read.runner.faults.enable_topic) == (speed, enable)
        assert read.hardware and read.dry_run == is_dry and read.policy == str(policy)
        is_heard = "arm1" in key or "*" in key  # the others name a node in no namespace
        assert read.runner.ramp_in_s == (4.0 if is_heard else 1.0)
        assert f"{100 * speed:g} %" in warning.msg[0].text
        assert ("NO ENABLE SWITCH" in warning.msg[0].text) == (not enable)


def test_hardware_has_defaults_of_its_own_and_a_parameter_file_stands_above_them(
    tmp_path: Path,
) -> None:
    (policy := tmp_path / "policy.onnx").write_bytes(b"x")
    common = {"policy": str(policy), "robot": "franka_fr3"}
    _, node = launched("deploy.launch.py", **common)
    read = given_to(node, PolicyServerConfig())
    assert read.judge and (read.runner.ramp_in_s, read.runner.position_margin) == (1.0, 0.02)
    (file := tmp_path / "mine.yaml").write_text(
        "/**:\n  ros__parameters: {judge: false, dry_run: true, runner: {ramp_in_s: 5.0}}\n"
    )
    _, node = launched("deploy.launch.py", **common, params_file=str(file))
    read = given_to(node, PolicyServerConfig())
    assert not read.judge and read.dry_run
    assert (read.runner.ramp_in_s, read.runner.position_margin) == (5.0, 0.02)
    _, server, _ = launched("deploy.launch.py", policy=str(policy), params_file=str(file))
    read = given_to(server, PolicyServerConfig())
    assert not read.hardware and read.runner.speed == 1.0 and read.runner.position_margin == 0.0


def test_the_browser_view_comes_where_it_is_asked_for_with_its_port(tmp_path: Path) -> None:
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(b"x")
    without = launched("deploy.launch.py", policy=str(policy), episodes="5")
    watched = launched("deploy.launch.py", policy=str(policy), episodes="5", browser="true")
    assert len(watched) == len(without) + 1
    with pytest.raises(ConfigurationError, match="browser_port:=many"):
        launched("deploy.launch.py", policy=str(policy), browser="true", browser_port="many")
    assert len(launched("train.launch.py", browser="true")) == 2


def test_a_file_of_settings_is_not_given_to_the_browser_view(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 3\n")
    values = {"namespace": "", "log_level": "info", "browser": "true", "browser_port": "0"}
    (node,) = launching.browser({**values, "params_file": str(path)})
    assert launching.browser({**values, "browser": "false", "params_file": ""}) == []
    assert node.node_executable == "browser_view"


def test_a_policy_or_parameter_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    policy = tmp_path / "policy.onnx"
    with pytest.raises(ConfigurationError, match="policy:="):
        launched("deploy.launch.py", policy=str(policy))
    policy.write_bytes(b"x")
    with pytest.raises(ConfigurationError, match="params_file"):
        launched("deploy.launch.py", policy=str(policy), params_file=str(tmp_path / "no.yaml"))


class Ended:
    """A process' end."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


def test_the_exit_status_of_a_launch_is_that_of_its_nodes() -> None:
    context = LaunchContext()
    with pytest.raises(RuntimeError, match="evaluator ended with exit code 1"):
        launching.decides("evaluator")(Ended(1), context)
    with pytest.raises(RuntimeError, match="policy_server ended with exit code 0"):
        launching.must_outlive("policy_server")(Ended(0), context)
    with pytest.raises(RuntimeError, match="policy_server ended with exit code 130"):
        launching.must_outlive("policy_server")(Ended(130), context)
    assert len(launching.decides("evaluator")(Ended(0), context)) == 1
    with pytest.raises(RuntimeError, match="130"):
        launching.decides("evaluator")(Ended(130), context)
    context._set_is_shutdown(True)
    for handler in (launching.decides, launching.must_outlive):
        assert handler("a node")(Ended(0), context) == []
        assert handler("a node")(Ended(130), context) == [], "it was still importing"
        with pytest.raises(RuntimeError, match="a node ended with exit code 1"):
            handler("a node")(Ended(1), context)


def test_what_is_recorded_begins_first_and_its_end_does_not_end_the_run(tmp_path: Path) -> None:
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(b"x")
    given = {"policy": str(policy), "record": "true"}
    recorder, *others = launched("deploy.launch.py", **given, episodes="5")
    assert len(others) == 3 and recorder.node_executable == "recorder"
    assert len(launched("deploy.launch.py", **given, robot="franka_fr3")) == 3
    on_exit = recorder._ExecuteLocal__on_exit
    (said,) = on_exit(SimpleNamespace(returncode=1), SimpleNamespace(is_shutdown=False))
    assert "NOTHING IS RECORDED" in said.msg[0].text
    assert on_exit(SimpleNamespace(returncode=0), SimpleNamespace(is_shutdown=False)) == []
    first, learner = launched("train.launch.py", record="true", task="reach")
    assert (first.node_executable, learner.node_executable) == ("recorder", "learner")
