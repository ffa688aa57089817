"""Goals of a simulated robot end with the episode that fails and the node that goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus  # noqa: E402
from bridge_in_process import bridge_in_process  # noqa: E402
from control_msgs.action import FollowJointTrajectory, GripperCommand  # noqa: E402
from deploy_helpers import DEADLINE_S, SETTLE_S, Client, NodeProcess, running_client  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402

from grpo_ros.nodes.shared import messages  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
ROBOT = load_robot("franka_fr3")
NAMES = ROBOT.interfaces
ABORTED = GoalStatus.STATUS_ABORTED


def result_of(client: Client, kind: Any, name: str, goal: Any) -> tuple[ActionClient, Any]:
    """Send a goal; return its client and the future of its result."""
    action = ActionClient(client.node, kind, name)
    assert action.wait_for_server(DEADLINE_S)
    handle = client.join(action.send_goal_async(goal))
    assert handle.accepted
    return action, handle.get_result_async()


def test_a_gripper_goal_is_aborted_where_an_episode_in_lock_step_fails() -> None:
    with bridge_in_process(SimulatorBridge, task="pick_place", lock_step=True) as client:
        goal = GripperCommand.Goal()
        action = ActionClient(client.node, GripperCommand, NAMES.gripper_action)
        assert action.wait_for_server(DEADLINE_S)
        refused = client.join(action.send_goal_async(goal))
        assert not refused.accepted, "nothing moves before an episode, so that it would never end"
        action.destroy()
        client.look(client.bridge.reset)
        action, result = result_of(client, GripperCommand, NAMES.gripper_action, goal)
        client.look(lambda: client.bridge.on_failure("a callback", "it raised"))
        assert client.bridge.sim.phase == "failed"
        assert client.join(result).status == ABORTED
        action.destroy()


def test_a_bridge_that_goes_aborts_the_goals_that_are_under_way(tmp_path: Path) -> None:
    bridge = NodeProcess(
        "simulator_bridge", tmp_path / "bridge.log", task="pick_place", real_time_factor=0.01
    )
    home = np.array([ROBOT.description.joints[name].home for name in ROBOT.arm_joints])
    way = FollowJointTrajectory.Goal()
    way.trajectory = messages.trajectory(0, ROBOT.arm_joints, home[None] + 0.3, 10**10)
    try:
        with running_client() as client:
            goals = [
                result_of(client, FollowJointTrajectory, NAMES.arm_trajectory_action, way),
                result_of(client, GripperCommand, NAMES.gripper_action, GripperCommand.Goal()),
            ]
            time.sleep(SETTLE_S)  # until the bridge knows who asks for results
            assert bridge.stop() == 0, bridge.output
            assert [client.join(result).status for _, result in goals] == [ABORTED, ABORTED]
            for action, _ in goals:
                action.destroy()
    finally:
        bridge.stop()
    assert "the simulator quits" in bridge.output
