"""A process with one node goes down in order, even where its executor is lost."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy")

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
