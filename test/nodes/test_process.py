"""A process with one node goes down in order, even where its executor is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

pytest.importorskip("rclpy")

import rclpy  # noqa: E402
from control_msgs.action import GripperCommand  # noqa: E402
from deploy_helpers import ENVIRONMENT, environment  # noqa: E402
from rclpy.action import ActionClient, ActionServer  # noqa: E402
from rclpy.node import Node  # noqa: E402

from grpo_ros.nodes.process import spinning  # noqa: E402

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


def wait_until(holds: Callable[[], bool]) -> bool:
    """Return whether it held within 5 s; the silent are forgotten only after 20 s."""
    deadline = time.monotonic() + 5.0
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
