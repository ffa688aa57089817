"""The policy server: lifecycle, refusals, and the last word on the wire."""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from commanded_motion import as_received, ends_at_rest, exactly  # noqa: E402
from deploy_helpers import Client, NodeProcess, export_untrained  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from fault_harness import STATUS, ServedPolicy  # noqa: E402
from fault_policies import export_orbit  # noqa: E402
from hostile import FILES, with_contract  # noqa: E402
from lifecycle_msgs.msg import Transition, TransitionEvent  # noqa: E402
from played_robot import PlayedRobot, until  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from grpo_ros.contract import Contract  # noqa: E402
from grpo_ros.deployment.policy_runner import PolicyRunner  # noqa: E402
from grpo_ros.nodes.policy_server import PolicyServer  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.shared.process import destroy  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")
ERROR = DiagnosticStatus.ERROR
BAD_FILES = ("data_above", "contract_of_brackets", "file_of_10_gb", "nested_branches")
"""Of `hostile.FILES`: another file's data, no contract, too large, graphs in graphs."""


@pytest.fixture(scope="module")
def server(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPolicy]:
    folder = tmp_path_factory.mktemp("served")
    policy = export_orbit(folder / "orbit.onnx")
    log = folder / "server.log"
    process = NodeProcess("policy_server", log, policy=policy, autostart=False)
    server = ServedPolicy(client, process, policy)
    assert server.state == "unconfigured"
    yield server
    assert process.stop() == 0, process.output


def test_illegal_transitions_are_answered_false_and_the_node_lives(
    client: Client, server: ServedPolicy, robot: PlayedRobot
) -> None:
    assert not server.change(Transition.TRANSITION_ACTIVATE)
    assert server.state == "unconfigured"
    assert server.configure()
    assert not server.change(Transition.TRANSITION_CONFIGURE)
    refused = server.start()
    assert not refused.success and "inactive" in refused.message
    assert server.change(Transition.TRANSITION_ACTIVATE)
    assert server.change(Transition.TRANSITION_DEACTIVATE)
    assert server.change(Transition.TRANSITION_CLEANUP)
    refused = client.call(Trigger, "policy_server/stop")
    assert not refused.success and "unconfigured" in refused.message


def test_without_a_robot_it_stays_unconfigured_and_names_what_is_absent(
    server: ServedPolicy,
) -> None:
    assert not server.configure(interface_timeout_s=0.2)
    found = server.says(ERROR, "the robot that is there does not fit", "nobody publishes")
    for name in ("/joint_states", "/objects/cube/pose", "nobody listens to '/fr3_arm_controller"):
        assert name in found.message
    assert server.state == "unconfigured"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_while_it_waits_for_a_robot_it_is_finalised_at_once(
    client: Client, tmp_path: Path, number: signal.Signals
) -> None:
    """A launch whose bridge had died needed SIGKILL: the wait went on."""
    policy, place = export_untrained(tmp_path / "policy.onnx"), f"alone_{number.name.lower()}"
    event = f"{place}/policy_server/transition_event"
    client.listen(TransitionEvent, event, qos.STATE)
    process = NodeProcess("policy_server", tmp_path / "server.log", f"/{place}", policy=policy)
    try:
        topic = f"{place}/joint_states"
        until(lambda: client.node.count_subscribers(topic) == 1, "the wait", 30.0)
        client.wait_for_publisher(event)
        began = time.monotonic()
        process.process.send_signal(number)
        assert process.wait() == 0, process.output
        assert time.monotonic() - began < 10.0, "the wait is 30 s"
    finally:
        process.stop()
    assert "configure: asked to stop while nobody publishes" in process.output
    assert "Traceback" not in process.output
    client.wait_for(event, lambda m: m.goal_state.label == "finalized")


def another_schema(model: object, data: dict) -> dict:
    return {**data, "schema_version": 99}


def test_policies_that_do_not_fit_or_are_hostile_leave_it_unconfigured_and_say_why(
    server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """R5, R7: another robot's joints and description; files made to hurt."""
    sound = server.policy.read_bytes()

    def rename(contract: Contract) -> Contract:
        limits = (dataclasses.replace(x, name=f"ur_{x.name}") for x in contract.limits)
        return dataclasses.replace(contract, limits=tuple(limits))

    def other_hash(contract: Contract) -> Contract:
        return dataclasses.replace(contract, robot_sha256="1" * 64)

    def altered(path: Path) -> None:
        path.write_bytes(sound[:-40] + bytes(1) + sound[-39:])

    def exported(edit: Callable[[Contract], Contract]) -> Callable[[Path], object]:
        return lambda path: export_untrained(path, edit=edit)

    cases: dict[str, tuple[Callable[[Path], object], str]] = {
        "truncated": (lambda path: path.write_bytes(sound[:5000]), "truncated"),
        "altered": (altered, "altered"),
        "joints": (exported(rename), r"not \['ur_fr3_joint1'"),
        "description": (exported(other_hash), "description has SHA-256"),
        "schema": (lambda path: with_contract(another_schema)(server.policy, path), "schema"),
        "absent": (lambda path: None, "No such file"),
        **{
            name: (lambda path, name=name: FILES[name][0](server.policy, path), FILES[name][1])
            for name in BAD_FILES
        },
    }
    for name, (build, reason) in cases.items():
        path = tmp_path / f"{name}.onnx"
        build(path)
        assert not server.configure(policy=str(path)), name
        assert server.state == "unconfigured"
        found = server.says(ERROR, "configure: ").message
        assert re.search(reason, found), found
    assert server.configure()


def test_it_holds_until_started_and_sends_motions_from_where_the_arm_is_to_rest(
    client: Client, server: ServedPolicy, robot: PlayedRobot
) -> None:
    server.activate()
    time.sleep(0.3)
    assert robot.commands() == []
    stood = robot.position
    assert server.start().success
    until(lambda: len(robot.commands()) >= 12, "commands")
    summary = server.stop()
    assert summary["phase"] == "running" and summary["periods"] >= 10
    stream = robot.commands()
    first = stream[0].message
    assert tuple(first.joint_names) == ROBOT.arm_joints
    points, times = messages.trajectory_points(first)
    assert times[0] == 0 and np.abs(points[0] - stood).max() < 1e-9
    assert all(ends_at_rest(sent, robot.limits) for sent in stream)
    until(lambda: robot.speed == 0.0, "rest")
    assert client.call(SetBool, "policy_server/mark_outcome", SetBool.Request(data=True)).success
    assert server.value("marked_success", "1") == "1"


def test_parameters_are_refused_while_they_would_not_take_effect(
    client: Client, server: ServedPolicy, robot: PlayedRobot
) -> None:
    """Regression: `ros2 param set` of a speed was answered "successful", and nothing slowed."""
    server.activate()
    given = [Parameter("runner.speed", value=0.05).to_parameter_msg()]
    request = SetParameters.Request(parameters=given)
    answer = client.call(SetParameters, "policy_server/set_parameters", request)
    assert not answer.results[0].successful
    assert answer.results[0].reason == "the node is active: deactivate and clean up first"


def test_what_is_waited_for_is_told_as_it_changes(
    client: Client, server: ServedPolicy, robot: PlayedRobot
) -> None:
    """Regression: status kept the first list of what is missing, diagnostics had none."""
    server.activate()
    robot.silent.update(["cube", "goal"])
    time.sleep(0.3)
    client.forget()
    assert server.start().success
    assert "goal" in server.says(DiagnosticStatus.OK, "waiting for inputs", "cube").message
    robot.silent.discard("goal")

    def is_told(message: str) -> bool:
        return message.startswith("waiting") and "cube" in message and "goal" not in message

    client.wait_for(STATUS, lambda m: is_told(m.message))
    client.wait_for("/diagnostics", lambda m: is_told(m.status[0].message))
    server.stop()


def test_without_a_clock_simulated_time_is_waited_for_by_name(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    assert not server.configure(use_sim_time=True, interface_timeout_s=1.0)
    server.says(ERROR, "nobody publishes '/clock' (rosgraph_msgs/msg/Clock)")


def test_a_policy_is_freed_where_the_node_is_cleaned_up(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    """Regression: what refers to itself was frozen, and every configuration kept its policy."""
    assert server.state == "unconfigured", "it would command the same arm"
    node = PolicyServer(parameter_overrides=[Parameter("policy", value=str(server.policy))])
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.failure
        runner = weakref.ref(node.control.runner)
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert runner() is None
    finally:
        destroy(node)


def fail(*_: object) -> None:
    raise RuntimeError("for a test")


def without_gripper_action(folder: Path) -> str:
    """Return a folder with the robot's description, in which the gripper has no action."""
    shutil.copytree(ROBOT.urdf_path.parent, folder)
    path = folder / "robot.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["interfaces"]["gripper_action"] = ""
    path.write_text(yaml.safe_dump(tree))
    return str(folder)


def held_by(node: PolicyServer) -> tuple[int, ...]:
    """Return how much of each kind a node has made."""
    made = (node.publishers, node.subscriptions, node.timers, node.waitables)
    threads = [thread for thread in threading.enumerate() if thread.name == "inference"]
    return (*(len(list(kind)) for kind in made), len(threads))


@pytest.mark.parametrize("what", ["gripper", "warm_up"])
def test_a_configure_that_fails_leaves_nothing_behind(
    server: ServedPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Regression: a publisher that stayed was taken for another node that commands."""
    given = {"policy": str(server.policy), "command": "position_stream"}
    expected = "for a test"
    if what == "gripper":
        given["policy"] = str(export_orbit(tmp_path / "gripper.onnx", has_gripper=True))
        given["robot"] = without_gripper_action(tmp_path / "robot")
        expected = "no action for its gripper.*expected interfaces.gripper_action"
    else:
        monkeypatch.setattr(PolicyRunner, "warm_up", fail)
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = PolicyServer(parameter_overrides=overrides)
    try:
        before = held_by(node)
        for _ in range(2):
            assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert held_by(node) == before
            assert re.search(expected, node.failure), node.failure
    finally:
        destroy(node)


def test_a_way_down_on_which_something_fails_ends_at_rest_and_inactive(
    server: ServedPolicy, robot: PlayedRobot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: no motion was played to its end, and an active node had no ticks."""
    assert server.state == "unconfigured", "it would command the same arm"
    node = PolicyServer(parameter_overrides=[Parameter("policy", value=str(server.policy))])
    finished: list[bool] = []
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.failure
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.failure
        monkeypatch.setattr(node.control.output, "finish", lambda: finished.append(True))
        monkeypatch.setattr(node.control.runner, "stop", fail)
        assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
        assert node.state_label == "inactive" and finished == [True]
        assert node.start_problem() == "the node is inactive: stop: RuntimeError: for a test"
        assert node._status._latest[:2] == (
            ERROR,
            "inactive; the stop failed: RuntimeError: for a test",
        )
    finally:
        destroy(node)


def test_a_start_refused_for_the_description_is_no_failure_of_the_node(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    server.run(robot)
    robot.describe(ROBOT.urdf.replace('upper="2.7437"', 'upper="1.5"', 1))
    time.sleep(0.3)
    answer = server.start()
    assert not answer.success and answer.message.startswith("robot_description differs")
    assert server.stop()["phase"] == "running"
    robot.describe(ROBOT.urdf)  # heard before the next test: the server keeps the last one
    until(lambda: server.start().success, "the description")


def test_sigterm_ends_with_a_motion_to_rest(server: ServedPolicy, robot: PlayedRobot) -> None:
    server.run(robot)
    server.process.process.terminate()
    number = len(robot.commands())
    assert server.process.wait() == 0
    until(lambda: robot.speed == 0.0, "rest")
    stream = robot.commands()
    assert len(stream) > number - 1
    assert ends_at_rest(stream[-1], robot.limits)
    assert exactly(stream, robot.limits) == []
    assert as_received(stream, robot.limits, robot.start)[1] == []
