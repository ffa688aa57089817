"""A process with one node goes down in order, even where its executor is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

import rclpy  # noqa: E402
from control_msgs.action import GripperCommand  # noqa: E402
from deploy_helpers import (  # noqa: E402
    DEADLINE_S,
    ENDLESS_TRAINING,
    ENVIRONMENT,
    NodeProcess,
    arguments_of,
    environment,
    export_untrained,
    running_client,
)
from rclpy.action import ActionClient, ActionServer  # noqa: E402
from rclpy.node import Node  # noqa: E402

from grpo_ros.nodes.shared.process import spinning  # noqa: E402

pytestmark = pytest.mark.ros


def test_an_executor_that_is_lost_ends_the_process_after_the_node_has_stopped() -> None:
    stopped = []

    def raise_out_of_the_executor() -> None:
        raise RuntimeError("out of the executor")

    with spinning(
        lambda: Node("lost_executor"), lambda node: stopped.append(node.get_name()), args=[]
    ) as process:
        process.node.create_timer(0.01, raise_out_of_the_executor)
        process.executor.wake()
        assert process.stopping.wait(10.0)
        assert process.wait() == 1
        assert process.is_lost
    assert stopped == ["lost_executor"]


def test_an_action_that_takes_too_long_is_reported() -> None:
    with spinning(lambda: Node("slow"), args=[]) as process:
        assert process.call(lambda: None, timeout_s=5.0)
        assert not process.call(lambda: time.sleep(0.5), timeout_s=0.05)


def test_an_action_that_raises_is_reported_and_the_executor_goes_on() -> None:
    def fail() -> None:
        raise RuntimeError("in an action")

    with spinning(lambda: Node("failing"), args=[]) as process:
        assert not process.call(fail)
        assert process.call(lambda: None)
        assert not process.is_lost


def test_nothing_of_a_node_stays_known_once_it_is_down() -> None:
    with environment(ENVIRONMENT):
        context = rclpy.Context()
        rclpy.init(args=[], context=context)
        outsider = Node("outsider", context=context)
        try:
            with spinning(lambda: Node("with_actions"), args=[]) as process:
                server = ActionServer(process.node, GripperCommand, "grip", lambda goal: None)
                client = ActionClient(process.node, GripperCommand, "grip")
                assert client.wait_for_server(10.0)
                assert wait_until(lambda: "with_actions" in outsider.get_node_names())
            # Both are still referred to here, as they are by a node that has made them.
            assert wait_until(lambda: outsider.get_node_names() == ["outsider"]), (server, client)
            assert wait_until(lambda: not outsider.count_publishers("grip/_action/status"))
        finally:
            outsider.destroy_node()
            rclpy.shutdown(context=context)


@pytest.mark.parametrize("name", ["simulator_bridge", "policy_server", "recorder", "learner"])
def test_a_node_of_ours_that_has_ended_is_forgotten_at_once(name: str, tmp_path: Path) -> None:
    """Else another server would find that the command topic is held, for as long as 20 s."""
    policy = export_untrained(tmp_path / "policy.onnx")
    given = {"policy": policy, "lock_step": True}
    settings = arguments_of({**ENDLESS_TRAINING, "output": tmp_path})
    with running_client() as client:
        node = {
            "simulator_bridge": partial(NodeProcess, **given),
            "policy_server": partial(NodeProcess, **given, autostart=True),
            "recorder": partial(NodeProcess, folder=tmp_path / "bags"),
            "learner": partial(NodeProcess, settings=settings),
        }[name](name, tmp_path / "log")
        try:
            assert wait_until(lambda: name in client.node.get_node_names(), DEADLINE_S)
            time.sleep(2.0)  # until it has made what it makes once it spins
        finally:
            node.stop()
        assert wait_until(lambda: client.node.get_node_names() == ["test_client"])


def wait_until(holds: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    """Return whether it held in time; the silent are forgotten only after 20 s."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
