"""A simulator bridge in the test's own process, beside a client on the same executor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from deploy_helpers import ENVIRONMENT, Client, environment
from rclpy.node import Node
from rclpy.parameter import Parameter

from grpo_ros.nodes.shared.process import destroy, spinning
from grpo_ros.nodes.simulator_bridge import SimulatorBridge


class Bridge(Client):
    """A client of a bridge whose insides can be looked at.

    Attributes:
        bridge: the node.
    """

    def __init__(self, node: Node, bridge: SimulatorBridge, process: Any) -> None:
        super().__init__(node)
        self.bridge, self._process = bridge, process

    def look[T](self, action: Any) -> T:
        """Return what an action returns, run between two callbacks of the bridge."""
        found: list[T] = []
        assert self._process.call(lambda: found.append(action()))
        return found[0]


@contextlib.contextmanager
def bridge_in_process(kind: type[SimulatorBridge], **parameters: Any) -> Iterator[Bridge]:
    """Spin a bridge and a client in one process, in the domain of the other tests."""
    overrides = [Parameter(name, value=value) for name, value in parameters.items()]
    with (
        environment(ENVIRONMENT),
        spinning(
            lambda: kind(parameter_overrides=overrides), SimulatorBridge.close, args=[]
        ) as process,
    ):
        client = Node("test_client")
        process.executor.add_node(client)
        try:
            yield Bridge(client, process.node, process)
        finally:
            process.executor.remove_node(client)
            destroy(client)
