"""The simulated arm's controllers over ROS: results, cancellation, preemption, streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus  # noqa: E402
from bridge_in_process import Bridge, bridge_in_process  # noqa: E402
from control_msgs.action import (  # noqa: E402
    FollowJointTrajectory,
    GripperCommand,
)
from control_msgs.msg import JointTolerance, JointTrajectoryControllerState  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")
NAMES, MS = ROBOT.interfaces, 1_000_000
Result = FollowJointTrajectory.Result


@pytest.fixture(scope="module")
def client() -> Iterator[Bridge]:
    with bridge_in_process(SimulatorBridge, task="pick_place", real_time_factor=2.0) as running:
        running.listen(JointTrajectoryControllerState, NAMES.arm_controller_state, qos.SENSOR)
        running.arm = ActionClient(  # type: ignore[attr-defined]
            running.node, FollowJointTrajectory, NAMES.arm_trajectory_action
        )
        assert running.arm.wait_for_server(20.0)  # type: ignore[attr-defined]
        time.sleep(0.3)
        yield running
        running.arm.destroy()  # type: ignore[attr-defined]


@pytest.fixture
def start(client: Bridge) -> np.ndarray:
    """Put the arm at its home, at rest, and return its position."""
    sim = client.bridge.sim
    client.look(lambda: (client.bridge.reset(), setattr(sim, "phase", "idle")))
    return client.look(lambda: sim.arm.target.copy())


def goal_to(position: np.ndarray, duration_ms: int) -> FollowJointTrajectory.Goal:
    goal = FollowJointTrajectory.Goal()
    goal.trajectory = messages.trajectory(0, ROBOT.arm_joints, position[None], duration_ms * MS)
    return goal


def send(client: Bridge, goal: Any, on_feedback: Callable[[Any], None] | None = None) -> Any:
    return client.join(client.arm.send_goal_async(goal, on_feedback))  # type: ignore[attr-defined]


def ended(client: Bridge, handle: Any) -> tuple[int, int, str]:
    response = client.join(handle.get_result_async())
    return response.status, response.result.error_code, response.result.error_string


def measured(client: Bridge) -> np.ndarray:
    return client.look(lambda: client.bridge.sim.measured().position.copy())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def held(client: Bridge) -> np.ndarray:
    """Return the arm's target once it stays what it is for 0.1 s of simulated time."""
    sim = client.bridge.sim
    deadline = time.monotonic() + 20.0
    while True:
        before, target = client.look(lambda: (sim.time_ns, sim.arm.target.copy()))
        until(lambda t=before: client.look(lambda: sim.time_ns) > t + 100 * MS)
        if np.array_equal(client.look(lambda: sim.arm.target.copy()), target):
            return target
        assert time.monotonic() < deadline


def test_a_goal_is_reported_on_the_way_and_reached(client: Bridge, start: np.ndarray) -> None:
    heard: list[Any] = []
    handle = send(
        client, goal_to(start + 0.1, 400), lambda message: heard.append(message.feedback)
    )
    assert ended(client, handle) == (
        GoalStatus.STATUS_SUCCEEDED,
        Result.SUCCESSFUL,
        "Goal successfully reached!",
    )
    assert len(heard) >= 4
    for feedback in heard:
        assert tuple(feedback.joint_names) == ROBOT.arm_joints
        desired, actual = np.array(feedback.desired.positions), np.array(feedback.actual.positions)
        np.testing.assert_array_equal(feedback.error.positions, desired - actual)
        assert len(feedback.desired.velocities) == len(feedback.actual.velocities) == 7
    assert np.abs(measured(client) - start).max() > 0.05


def test_the_controllers_state_says_what_is_after_and_what_is_measured(
    client: Bridge, start: np.ndarray
) -> None:
    client.forget()
    send(client, goal_to(start + 0.1, 300))
    state = client.wait_for(
        NAMES.arm_controller_state,
        lambda m: np.allclose(m.output.positions, start + 0.1) and not any(m.reference.velocities),
    )
    assert tuple(state.joint_names) == ROBOT.arm_joints
    np.testing.assert_allclose(state.reference.positions, start + 0.1)
    error = np.array(state.reference.positions) - np.array(state.feedback.positions)
    np.testing.assert_array_equal(state.error.positions, error)
    moving = [m for m in client.heard(NAMES.arm_controller_state) if any(m.reference.velocities)]
    np.testing.assert_allclose(moving[0].reference.velocities, 0.1 / 0.3, rtol=0.05)


def test_a_path_tolerance_that_cannot_be_met_aborts_the_goal_and_holds(
    client: Bridge, start: np.ndarray
) -> None:
    goal = goal_to(start + 0.3, 500)
    goal.path_tolerance = [JointTolerance(name="fr3_joint4", position=1e-4)]
    assert ended(client, send(client, goal)) == (
        GoalStatus.STATUS_ABORTED,
        Result.PATH_TOLERANCE_VIOLATED,
        "Aborted due to path tolerance violation",
    )
    assert np.abs(held(client) - start).max() < 0.05


def test_a_goal_tolerance_that_cannot_be_met_aborts_the_goal_after_its_time(
    client: Bridge, start: np.ndarray
) -> None:
    goal = goal_to(start + 0.1, 100)
    goal.goal_tolerance = [JointTolerance(name="fr3_joint2", position=1e-9)]
    goal.goal_time_tolerance = messages.to_duration(100 * MS)
    status, code, text = ended(client, send(client, goal))
    assert (status, code) == (GoalStatus.STATUS_ABORTED, Result.GOAL_TOLERANCE_VIOLATED)
    assert text.startswith("Aborted due to goal_time_tolerance exceeding by 0.1")


def test_a_cancelled_goal_holds_where_the_arm_is(client: Bridge, start: np.ndarray) -> None:
    handle = send(client, goal_to(start + 0.5, 1000))
    until(lambda: bool(np.abs(measured(client) - start).max() > 0.05))
    response = client.join(handle.cancel_goal_async())
    assert len(response.goals_canceling) == 1
    assert ended(client, handle) == (GoalStatus.STATUS_CANCELED, Result.SUCCESSFUL, "")
    assert 0.03 < np.abs(held(client) - start).max() < 0.4


def test_a_new_goal_preempts_the_one_before(client: Bridge, start: np.ndarray) -> None:
    first = send(client, goal_to(start + 0.5, 1500))
    second = send(client, goal_to(start, 200))
    assert ended(client, first) == (
        GoalStatus.STATUS_CANCELED,
        Result.INVALID_GOAL,
        "Current goal cancelled due to new incoming action.",
    )
    assert ended(client, second)[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_trajectory_by_topic_replaces_a_goals_without_ending_it(
    client: Bridge, start: np.ndarray
) -> None:
    publisher = client.node.create_publisher(
        JointTrajectory, NAMES.arm_trajectory_topic, qos.COMMAND
    )
    until(lambda: publisher.get_subscription_count() == 1)
    handle = send(client, goal_to(start + 0.5, 1500))
    publisher.publish(messages.trajectory(0, ROBOT.arm_joints, (start - 0.1)[None], 400 * MS))
    assert ended(client, handle)[0] == GoalStatus.STATUS_SUCCEEDED
    np.testing.assert_allclose(
        client.look(lambda: client.bridge.sim.arm.target.copy()), start - 0.1
    )
    client.node.destroy_publisher(publisher)


def unsound(kind: str, position: np.ndarray) -> JointTrajectory:
    """Return a trajectory that is wrong in one way."""
    message = messages.trajectory(0, ROBOT.arm_joints, position[None] + 0.4, 300 * MS)
    match kind:
        case "strangers":
            message.joint_names = ["wheel"] * 7
        case "partial":
            message.joint_names = message.joint_names[:6]
        case "narrow":
            message.points[0].positions = [0.0] * 5
        case "nan":
            message.points[0].positions = [float("nan")] * 7
        case "moves at its end":
            message.points[0].velocities = [0.1] * 7
        case "past":
            message.header.stamp = messages.to_time(MS)
        case "empty":
            message.points = []
    return message


KINDS = ("strangers", "partial", "narrow", "nan", "moves at its end", "past", "empty")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unsound_trajectory_is_rejected_as_a_goal_and_ignored_by_topic(
    client: Bridge, start: np.ndarray, kind: str
) -> None:
    publisher = client.node.create_publisher(
        JointTrajectory, NAMES.arm_trajectory_topic, qos.COMMAND
    )
    until(lambda: publisher.get_subscription_count() == 1)
    sound = send(client, goal_to(start + 0.1, 300))
    assert sound.accepted
    goal = FollowJointTrajectory.Goal(trajectory=unsound(kind, start))
    assert not send(client, goal).accepted
    publisher.publish(goal.trajectory)
    assert ended(client, sound)[0] == GoalStatus.STATUS_SUCCEEDED
    time.sleep(0.1)
    np.testing.assert_allclose(
        client.look(lambda: client.bridge.sim.arm.target.copy()), start + 0.1
    )
    client.node.destroy_publisher(publisher)


def test_streams_move_the_arm_and_unsound_ones_do_not(client: Bridge, start: np.ndarray) -> None:
    stream = client.node.create_publisher(Float64MultiArray, NAMES.arm_stream_topic, qos.COMMAND)
    joints = client.node.create_publisher(JointState, NAMES.arm_joint_command, qos.COMMAND)
    until(lambda: stream.get_subscription_count() == joints.get_subscription_count() == 1)

    def target() -> np.ndarray:
        return client.look(lambda: client.bridge.sim.arm.target.copy())

    stream.publish(Float64MultiArray(data=(start + 0.05).tolist()))
    until(lambda: np.array_equal(target(), start + 0.05))
    stream.publish(Float64MultiArray(data=[0.0] * 6))
    stream.publish(Float64MultiArray(data=[float("nan")] * 7))
    joints.publish(JointState(name=["wheel"], position=[0.0]))
    joints.publish(JointState(name=["fr3_joint1", "fr3_joint2"], position=[0.0]))
    time.sleep(0.2)
    assert np.array_equal(target(), start + 0.05)
    gripper = ROBOT.gripper.joint  # type: ignore[union-attr]
    joints.publish(JointState(name=[gripper, "fr3_joint2"], position=[0.01, start[1]]))
    until(lambda: target()[1] == start[1])
    assert client.look(lambda: client.bridge.sim.gripper.target) == 0.01
    joints.publish(JointState(name=["fr3_joint1"], velocity=[0.2]))
    until(lambda: target()[0] > start[0] + 0.1)
    joints.publish(JointState(name=["fr3_joint1"], velocity=[0.0]))
    for publisher in (stream, joints):
        client.node.destroy_publisher(publisher)


def test_a_goal_after_a_streamed_command_that_ended_another_in_a_pause(
    client: Bridge, start: np.ndarray
) -> None:
    stream = client.node.create_publisher(Float64MultiArray, NAMES.arm_stream_topic, qos.COMMAND)
    until(lambda: stream.get_subscription_count() == 1)
    state, sim = client.bridge.run_state, client.bridge.sim
    client.look(lambda: setattr(state, "now", "paused"))
    try:
        first = send(client, goal_to(start + 0.5, 1500))
        stream.publish(Float64MultiArray(data=(start + 0.05).tolist()))
        until(lambda: not client.look(lambda: sim.arm.trajectories.has_goal))
        second = send(client, goal_to(start + 0.1, 200))
        assert second.accepted
        assert ended(client, first)[0] == GoalStatus.STATUS_ABORTED
    finally:
        client.look(lambda: setattr(state, "now", "playing"))
        client.node.destroy_publisher(stream)
    assert ended(client, second)[0] == GoalStatus.STATUS_SUCCEEDED


def test_a_reset_aborts_what_is_under_way(client: Bridge, start: np.ndarray) -> None:
    handle = send(client, goal_to(start + 0.5, 1500))
    client.look(lambda: (client.bridge.reset(), setattr(client.bridge.sim, "phase", "idle")))
    status, code, text = ended(client, handle)
    assert (status, code) == (GoalStatus.STATUS_ABORTED, Result.INVALID_GOAL)
    assert "the robot was reset" in text


def raising(*_: Any) -> Any:
    raise RuntimeError("as nothing should")


def test_what_a_goals_callbacks_raise_ends_neither_the_goal_without_a_result_nor_the_bridge(
    client: Bridge, start: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    actions = client.bridge.actions
    with monkeypatch.context() as patch:
        patch.setattr(actions, "_checked", raising)
        assert not send(client, goal_to(start, 200)).accepted
    with monkeypatch.context() as patch:
        patch.setattr(client.bridge.sim.arm, "begin_goal", raising)
        handle = send(client, goal_to(start, 200))
        assert handle.accepted and ended(client, handle)[0] == GoalStatus.STATUS_ABORTED
    handle = send(client, goal_to(start + 0.1, 1000))
    with monkeypatch.context() as patch:
        patch.setattr(client.bridge.sim.arm.trajectories, "cancel_goal", raising)
        assert not client.join(handle.cancel_goal_async()).goals_canceling
    assert "as nothing should" in client.bridge.failure
    assert ended(client, handle)[0] == GoalStatus.STATUS_SUCCEEDED


# ------------------------------------------------------------------ gripper


def close(position: float = 0.0, effort: float = 20.0) -> GripperCommand.Goal:
    goal = GripperCommand.Goal()
    goal.command.position, goal.command.max_effort = position, effort
    return goal


def test_a_gripper_command_is_reached_stalls_or_is_refused(
    client: Bridge, start: np.ndarray
) -> None:
    accepted, response = client.send_goal(GripperCommand, NAMES.gripper_action, close())
    assert accepted and response.status == GoalStatus.STATUS_SUCCEEDED
    assert response.result.reached_goal and not response.result.stalled
    assert response.result.position < 0.01 and response.result.effort == 20.0
    accepted, response = client.send_goal(GripperCommand, NAMES.gripper_action, close(0.5))
    assert accepted and response.status == GoalStatus.STATUS_ABORTED  # its stop is at 0.04 m
    assert response.result.stalled and not response.result.reached_goal
    assert response.result.position == pytest.approx(0.04, abs=2e-3)
    accepted, _ = client.send_goal(GripperCommand, NAMES.gripper_action, close(float("nan")))
    assert not accepted


def test_gripper_goals_are_preempted_and_cancelled(client: Bridge, start: np.ndarray) -> None:
    action = ActionClient(client.node, GripperCommand, NAMES.gripper_action)
    assert action.wait_for_server(20.0)
    state = client.bridge.run_state
    client.look(lambda: setattr(state, "now", "paused"))  # so that nothing stalls meanwhile
    first = client.join(action.send_goal_async(close(0.5)))
    second = client.join(action.send_goal_async(close(0.6)))
    assert client.join(first.get_result_async()).status == GoalStatus.STATUS_CANCELED
    client.join(second.cancel_goal_async())
    assert client.join(second.get_result_async()).status == GoalStatus.STATUS_CANCELED
    target = client.look(lambda: client.bridge.sim.gripper.target)
    client.look(lambda: setattr(state, "now", "playing"))
    assert 0.0 <= target < 0.05  # what was measured, no longer 0.6
    action.destroy()
