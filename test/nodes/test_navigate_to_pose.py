"""navigate_to_pose: a client of Nav2 drives a policy's base to a goal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("rclpy")
pytest.importorskip("nav2_msgs")

from action_msgs.msg import GoalStatus  # noqa: E402
from deploy_helpers import Client, NodeProcess, running_client  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav2_msgs.action import NavigateToPose  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from grpo_ros.export.onnx_export import export_policy  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.tasks.navigate import Navigate, NavigateConfig  # noqa: E402

pytestmark = pytest.mark.ros


class TurnAndDrive(nn.Module):
    """Turns towards the goal, and drives while it is ahead."""

    def __init__(self, chunk_size: int) -> None:
        super().__init__()
        self.chunk_size = chunk_size

    def mode(self, obs: Mapping[str, Tensor]) -> Tensor:
        ahead, left = obs["goal"][:, 1], obs["goal"][:, 2]
        speed = ahead.clamp(0.0, 1.0) ** 4
        # The exporter drops inputs that nothing reads, and a contract names them all.
        unread = 0.0 * (obs["scan"].sum(dim=1) + obs["last_action"].sum(dim=1))
        action = torch.stack([speed, (2.0 * left).clamp(-1.0, 1.0) + unread], dim=-1)
        return action[:, None].repeat(1, self.chunk_size, 1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contract = Navigate(NavigateConfig(num_obstacles=0, horizon=300)).contract()
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    path.with_name("config.yaml").write_text("task: navigate\nnavigate: {num_obstacles: 0}\n")
    export_policy(TurnAndDrive(contract.chunk_size), contract, path)
    return path


@pytest.fixture
def served(policy: Path, tmp_path: Path) -> Iterator[tuple[Client, NodeProcess]]:
    """A client beside a simulated base, and a server that serves it."""
    with contextlib.ExitStack() as stack:
        bridge = NodeProcess("simulator_bridge", tmp_path / "bridge.log", policy=policy)
        stack.callback(bridge.stop)
        server = NodeProcess(
            "policy_server", tmp_path / "server.log", policy=policy, use_sim_time=True
        )
        stack.callback(server.stop)
        client = stack.enter_context(running_client())
        client.listen(Odometry, "odom", qos.STATE)
        client.listen(PoseStamped, "objects/goal/pose", qos.STATE)
        assert client.call(Trigger, "simulator_bridge/reset").success
        yield client, server
        assert server.stop() == 0, server.output


@pytest.fixture
def client(served: tuple[Client, NodeProcess]) -> Client:
    return served[0]


def goal_of(client: Client) -> NavigateToPose.Goal:
    return NavigateToPose.Goal(pose=client.wait_for("objects/goal/pose"))


def test_a_goal_is_driven_to_and_another_is_refused_meanwhile(client: Client) -> None:
    actions = ActionClient(client.node, NavigateToPose, "navigate_to_pose")
    assert actions.wait_for_server(30.0)
    left = []
    goal = goal_of(client)
    handle = client.join(
        actions.send_goal_async(goal, lambda m: left.append(m.feedback.distance_remaining))
    )
    assert handle.accepted
    assert not client.join(actions.send_goal_async(goal)).accepted
    answer = client.join(handle.get_result_async())
    assert answer.status == GoalStatus.STATUS_SUCCEEDED, answer.result.error_msg
    assert left and left[-1] < left[0]
    actions.destroy()


def test_a_cancelled_goal_stops_the_base(client: Client) -> None:
    actions = ActionClient(client.node, NavigateToPose, "navigate_to_pose")
    assert actions.wait_for_server(30.0)
    handle = client.join(actions.send_goal_async(goal_of(client)))
    assert handle.accepted
    client.wait_for("odom", lambda m: abs(m.twist.twist.linear.x) > 0.2)
    client.join(handle.cancel_goal_async())
    assert client.join(handle.get_result_async()).status == GoalStatus.STATUS_CANCELED
    client.forget()
    client.wait_for("odom", lambda m: abs(m.twist.twist.linear.x) < 0.01)
    actions.destroy()


def test_a_goal_is_told_that_its_node_goes_down(served: tuple[Client, NodeProcess]) -> None:
    client, server = served
    actions = ActionClient(client.node, NavigateToPose, "navigate_to_pose")
    assert actions.wait_for_server(30.0)
    handle = client.join(actions.send_goal_async(goal_of(client)))
    assert handle.accepted
    result = handle.get_result_async()
    client.wait_for("odom", lambda m: abs(m.twist.twist.linear.x) > 0.2)
    server.process.terminate()
    answer = client.join(result)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert answer.result.error_msg == "the node goes down"
    actions.destroy()
