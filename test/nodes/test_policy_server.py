"""The policy server: lifecycle, refusals, hostile inputs, and the last word on the wire."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from deploy_helpers import Client, NodeProcess, export_untrained, running_client  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes import messages, qos  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")
ARM_TOPIC = ROBOT.interfaces.arm_trajectory_topic
STATUS = "policy_server/status"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_client() as running:
        running.listen(JointTrajectory, ARM_TOPIC, qos.STATE)
        running.listen(DiagnosticStatus, STATUS, qos.LATCHED)
        running.listen(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        yield running


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    # Without a gripper command nothing waits for a gripper's driver.
    return export_untrained(
        folder / "policy.onnx",
        horizon=1000,
        edit=lambda contract: dataclasses.replace(contract, action=contract.action[:1]),
    )


def change(client: Client, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(client.call(ChangeState, "policy_server/change_state", request).success)


def state(client: Client) -> str:
    return str(client.call(GetState, "policy_server/get_state").current_state.label)


def set_policy(client: Client, path: Path) -> None:
    parameter = Parameter("policy", Parameter.Type.STRING, str(path)).to_parameter_msg()
    request = SetParameters.Request(parameters=[parameter])
    assert (
        client.call(SetParameters, "policy_server/set_parameters", request).results[0].successful
    )


class Robot:
    """Publishes a still robot and a scene at about 50 Hz for a while."""

    def __init__(self, client: Client) -> None:
        node = client.node
        self.node = node
        self.joints = node.create_publisher(JointState, "joint_states", qos.STATE)
        self.poses = {
            name: node.create_publisher(PoseStamped, f"objects/{name}/pose", qos.STATE)
            for name in ("cube", "goal")
        }
        self.position = ROBOT.home.numpy().copy()

    def publish_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            stamp = self.node.get_clock().now().nanoseconds
            for x, publisher in zip((0.45, 0.55), self.poses.values(), strict=True):
                pose = (x, 0.1, 0.02, 0.0, 0.0, 0.0, 1.0)
                publisher.publish(messages.pose(stamp, ROBOT.base_frame, pose))
            message = messages.joint_state(stamp, ROBOT.joint_names, self.position, np.zeros(8))
            self.joints.publish(message)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def process(
    client: Client, policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp("server") / "server.log"
    process = NodeProcess(
        "policy_server", log, policy=policy, autostart=False, **{"runner.stop_after_s": 0.4}
    )
    assert state(client) == "unconfigured"
    yield process
    assert process.stop() == 0, process.output


@pytest.fixture
def server(client: Client, process: NodeProcess, policy: Path) -> NodeProcess:
    """The server, unconfigured, with nothing heard from it yet."""
    if state(client) == "active":
        assert change(client, Transition.TRANSITION_DEACTIVATE)
    if state(client) == "inactive":
        assert change(client, Transition.TRANSITION_CLEANUP)
    set_policy(client, policy)
    time.sleep(0.2)
    client.forget()
    return process


def test_illegal_transitions_are_answered_false_and_the_node_lives(
    client: Client, server: NodeProcess
) -> None:
    assert not change(client, Transition.TRANSITION_ACTIVATE)
    assert state(client) == "unconfigured"
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    refused = client.call(Trigger, "policy_server/start")
    assert not refused.success and "inactive" in refused.message
    assert change(client, Transition.TRANSITION_ACTIVATE)
    assert change(client, Transition.TRANSITION_DEACTIVATE)
    assert change(client, Transition.TRANSITION_CLEANUP)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == "inactive"


def test_policies_that_do_not_fit_leave_it_unconfigured_and_say_why(
    client: Client, server: NodeProcess, policy: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(policy.read_bytes()[:5000])
    other = export_untrained(
        tmp_path / "other.onnx", edit=lambda c: dataclasses.replace(c, robot_sha256="1" * 64)
    )
    joints = export_untrained(
        tmp_path / "joints.onnx",
        edit=lambda c: dataclasses.replace(
            c, limits=tuple(dataclasses.replace(x, name=f"ur_{x.name}") for x in c.limits)
        ),
    )
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as file:
        file.truncate(10**10)
    for path, reason in (
        (damaged, "damaged.onnx"),
        (joints, "not ['ur_fr3_joint1'"),
        (huge, "10000000000 bytes, larger than"),
        (other, "description has SHA-256"),
        (tmp_path / "absent.onnx", "No such file"),
    ):
        set_policy(client, path)
        assert not change(client, Transition.TRANSITION_CONFIGURE)
        assert state(client) == "unconfigured"
        found = client.wait_for(STATUS, lambda m, reason=reason: reason in m.message)
        assert found.level == DiagnosticStatus.ERROR
    set_policy(client, policy)
    assert change(client, Transition.TRANSITION_CONFIGURE)


def test_it_holds_until_started_and_never_commands_on_unsound_inputs(
    client: Client, server: NodeProcess
) -> None:
    robot = Robot(client)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    robot.publish_for(0.5)
    assert client.heard(ARM_TOPIC) == []
    assert client.call(Trigger, "policy_server/start").success
    good = robot.position.copy()
    robot.position[3] = math.nan
    robot.publish_for(0.5)
    assert client.heard(ARM_TOPIC) == []
    robot.position = good
    robot.publish_for(1.0)
    commands = client.heard(ARM_TOPIC)
    assert len(commands) >= 10
    first = commands[0]
    assert tuple(first.joint_names) == ROBOT.arm_joints
    points, times = messages.trajectory_points(first)
    assert np.abs(points[0] - good[:7]).max() < 0.1 and times[0] == 50_000_000
    stopped = client.call(Trigger, "policy_server/stop")
    summary = json.loads(stopped.message)
    assert summary["periods"] >= 10 and summary["interventions"] == {}
    number = len(client.heard(ARM_TOPIC))
    robot.publish_for(0.3)
    assert len(client.heard(ARM_TOPIC)) <= number + 1
    assert client.call(SetBool, "policy_server/mark_outcome", SetBool.Request(data=True)).success
    array = client.wait_for(
        "/diagnostics", lambda m: any(v.key == "rejected.not_finite" for v in m.status[0].values)
    )
    assert array.status[0].name == "policy_server"


def test_when_observations_end_it_holds_then_stops(client: Client, server: NodeProcess) -> None:
    robot = Robot(client)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    assert client.call(Trigger, "policy_server/start").success
    robot.publish_for(0.6)
    status = client.wait_for(STATUS, lambda m: m.level == DiagnosticStatus.ERROR)
    assert "stale" in status.message
    number = len(client.heard(ARM_TOPIC))
    robot.publish_for(0.3)
    assert len(client.heard(ARM_TOPIC)) == number
    assert client.call(Trigger, "policy_server/start").success


def test_sigterm_ends_with_a_target_at_rest(client: Client, server: NodeProcess) -> None:
    robot = Robot(client)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    assert client.call(Trigger, "policy_server/start").success
    robot.publish_for(1.0)
    assert len(client.heard(ARM_TOPIC)) >= 10
    server.process.terminate()
    robot.publish_for(0.3)
    assert server.wait() == 0
    time.sleep(0.3)
    points, _ = messages.trajectory_points(client.heard(ARM_TOPIC)[-1])
    commanded, _ = messages.trajectory_points(client.heard(ARM_TOPIC)[-2])
    braking = np.vstack([commanded[:1], points])
    speed = np.diff(braking, axis=0) / 0.05
    assert (np.abs(np.diff(speed, axis=0)) / 0.05 <= 10.0 * (1 + 1e-4)).all()
    assert (np.abs(speed[-1]) <= 10.0 * 0.05).all()
