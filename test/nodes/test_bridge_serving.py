"""The simulator bridge, serving: a driver's interfaces, resets, outcomes, and hostile commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from control_msgs.action import FollowJointTrajectory, GripperCommand  # noqa: E402
from deploy_helpers import (  # noqa: E402
    Client,
    NodeProcess,
    export_untrained,
    running_client,
    values_of,
)
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402
from grpo_ros.robots.urdf import parse_urdf  # noqa: E402
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")
ARM_TOPIC = ROBOT.interfaces.arm_trajectory_topic
STATUS = "simulator_bridge/status"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_client() as running:
        yield running


@pytest.fixture(scope="module")
def bridge(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp("bridge") / "bridge.log"
    process = NodeProcess("simulator_bridge", log, task="pick_place", real_time_factor=1.0)
    client.call(Trigger, "simulator_bridge/outcome")  # it is up
    client.listen(JointState, "joint_states", qos.SENSOR)
    client.listen(Clock, "/clock", qos.CLOCK)
    client.listen(DiagnosticStatus, STATUS, qos.LATCHED)
    yield process
    assert process.stop() == 0, process.output
    assert "Traceback" not in process.output


def reset(client: Client) -> int:
    response = client.call(Trigger, "simulator_bridge/reset")
    assert response.success
    return int(json.loads(response.message)["episode"])


def test_late_joiners_get_description_and_transforms_of_all_links(
    client: Client, bridge: NodeProcess
) -> None:
    client.listen(String, "robot_description", qos.LATCHED)
    client.listen(TFMessage, "/tf_static", qos.LATCHED)
    client.listen(TFMessage, "/tf", qos.TF)
    urdf = parse_urdf(client.wait_for("robot_description").data, "robot_description")
    static, moving = client.wait_for("/tf_static"), client.wait_for("/tf")
    parents = {
        t.child_frame_id: t.header.frame_id for t in [*static.transforms, *moving.transforms]
    }
    assert set(urdf.links) - {ROBOT.base_frame} <= set(parents)
    for body in ("cube", "goal"):
        assert parents[body] == ROBOT.base_frame


def test_a_reset_begins_the_next_held_out_state_and_the_clock_never_goes_back(
    client: Client, bridge: NodeProcess
) -> None:
    client.listen(PoseStamped, "objects/cube/pose", qos.SENSOR)
    client.listen(PoseStamped, "objects/goal/pose", qos.SENSOR)
    first = reset(client)
    assert reset(client) == first + 1
    expected = PickPlace().sample(held_out_keys(1, first=first + 1))
    x, y = expected.poses["goal"][0, :2].tolist()
    goal = client.wait_for(
        "objects/goal/pose", lambda m: (m.pose.position.x, m.pose.position.y) == (x, y)
    )
    assert goal.header.frame_id == ROBOT.base_frame
    client.wait_for("objects/cube/pose")
    state = client.wait_for("joint_states")
    assert tuple(state.name) == ROBOT.joint_names and len(state.velocity) == 8
    stamps = [messages.to_ns(message.clock) for message in client.heard("/clock")]
    assert stamps == sorted(stamps) and len(stamps) > 5
    outcome = client.call(Trigger, "simulator_bridge/outcome")
    assert not outcome.success and "running" in json.loads(outcome.message)["error"]


def test_arm_and_gripper_actions_move_the_simulated_robot(
    client: Client, bridge: NodeProcess
) -> None:
    reset(client)
    state = client.heard("joint_states")[-1]
    start = np.array(state.position)[:7]
    goal = FollowJointTrajectory.Goal()
    goal.trajectory = messages.trajectory(
        0, ROBOT.arm_joints[::-1], (start + 0.1)[::-1][None], 400_000_000
    )
    accepted, response = client.send_goal(
        FollowJointTrajectory, ROBOT.interfaces.arm_trajectory_action, goal
    )
    assert accepted and response.result.error_code == FollowJointTrajectory.Result.SUCCESSFUL
    reached = client.wait_for(
        "joint_states", lambda m: np.abs(np.array(m.position)[:7] - start - 0.1).max() < 0.01
    )
    assert reached is not None
    close = GripperCommand.Goal()
    close.command.position, close.command.max_effort = 0.0, 20.0
    accepted, response = client.send_goal(GripperCommand, ROBOT.interfaces.gripper_action, close)
    assert accepted and response.result.reached_goal and response.result.position < 0.01


def test_an_episode_ends_at_the_horizon_with_an_outcome(
    client: Client, bridge: NodeProcess
) -> None:
    episode = reset(client)
    client.wait_for(
        STATUS, lambda m: m.message == "finished" and values_of(m)["episode"] == str(episode)
    )
    response = client.call(Trigger, "simulator_bridge/outcome")
    outcome = json.loads(response.message)
    assert (outcome["episode"], outcome["steps"], outcome["error"]) == (
        episode,
        PickPlaceConfig().horizon,
        "",
    )
    assert response.success is outcome["success"] is False and 0.0 <= outcome["score"] <= 1.0


def test_lock_step_waits_for_the_stamped_command_and_names_a_missed_deadline(
    client: Client, tmp_path: Path
) -> None:
    policy = export_untrained(tmp_path / "policy.onnx", horizon=5)
    process = NodeProcess(
        "simulator_bridge",
        tmp_path / "bridge.log",
        namespace="/locked",
        policy=policy,
        lock_step=True,
        command_timeout_s=1.0,
    )
    try:
        client.listen(JointState, "locked/joint_states", qos.STATE)
        client.listen(DiagnosticStatus, "locked/simulator_bridge/status", qos.LATCHED)
        publisher = client.node.create_publisher(JointTrajectory, f"locked/{ARM_TOPIC}", qos.STATE)
        begun = client.call(Trigger, "locked/simulator_bridge/reset")
        stamp = json.loads(begun.message)["stamp_ns"]
        state = client.wait_for("locked/joint_states", lambda m: stamp_of(m) == stamp)
        target = np.array(state.position)[None, :7]
        for asked in (stamp + 1, stamp):
            command = messages.trajectory(asked, ROBOT.arm_joints, target, 50_000_000)
            command.points[0].velocities = [0.1] * 7  # the period's target is its position
            publisher.publish(command)
        client.wait_for("locked/joint_states", lambda m: stamp_of(m) == stamp + 50_000_000)
        stamps = {stamp_of(message) for message in client.heard("locked/joint_states")}
        assert stamps == {stamp, stamp + 50_000_000}
        client.wait_for("locked/simulator_bridge/status", lambda m: m.message == "failed")
        outcome = client.call(Trigger, "locked/simulator_bridge/outcome")
        error = json.loads(outcome.message)["error"]
        assert f"no command stamped {stamp + 50_000_000} ns within 1 s" in error
        assert not outcome.success
    finally:
        assert process.stop() == 0, process.output


def test_in_lock_step_a_command_that_is_not_sound_ends_the_episode_and_not_the_node(
    client: Client, tmp_path: Path
) -> None:
    process = NodeProcess(
        "simulator_bridge", tmp_path / "bridge.log", "/strict", task="pick_place", lock_step=True
    )
    status = "strict/simulator_bridge/status"
    try:
        client.call(Trigger, "strict/simulator_bridge/outcome")
        client.listen(DiagnosticStatus, status, qos.LATCHED)
        publisher = client.node.create_publisher(JointTrajectory, f"strict/{ARM_TOPIC}", qos.STATE)
        for fault in ("strangers", "nan", "narrow", "late"):
            begun = json.loads(client.call(Trigger, "strict/simulator_bridge/reset").message)
            names = ("wheel",) * 7 if fault == "strangers" else ROBOT.arm_joints
            points = np.full((1, 5 if fault == "narrow" else 7), np.nan if fault == "nan" else 0.0)
            period = 50_000_000 if fault != "late" else 60_000_000
            publisher.publish(messages.trajectory(begun["stamp_ns"], names, points, period))
            episode = str(begun["episode"])
            failed = client.wait_for(
                status,
                lambda m, e=episode: m.message == "failed" and values_of(m)["episode"] == e,
            )
            assert "arm command" in values_of(failed)["error"]
    finally:
        assert process.stop() == 0, process.output


def stamp_of(message: JointState) -> int:
    """Return a joint state's stamp in nanoseconds."""
    return messages.to_ns(message.header.stamp)
