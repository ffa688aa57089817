"""BatchPort: how a learner finds a running `batch_bridge` node, and finds it again."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from std_msgs.msg import String

from grpo_ros.errors import BridgeError
from grpo_ros.nodes.shared import qos
from grpo_ros.nodes.training.exchange import WAIT_S, MessageChannel
from grpo_ros.nodes.training.tensor_messages import CODECS
from grpo_ros.simulators.remote import local_socket
from grpo_ros.simulators.remote.channel import Channel
from grpo_ros.simulators.remote.serving import HELLO
from grpo_ros.simulators.remote.shared_memory import SharedMemoryChannel
from grpo_ros.simulators.remote.wire import Message
from grpo_ros.training.settings import BridgeConfig

PORT = "port"
"""Latched topic of a bridge's node on which it announces itself."""
ANNOUNCED = {"host": str, "epoch": int, "transport": str, "socket": str, "message_type": str}
"""What an announcement has to hold, and of which type."""
HELLO_S = 2.0
"""Deadline of a first answer over messages; asked again until the whole deadline."""


class BatchPort:
    """A `Connector` to the bridge that announces itself on `<attach>/port`.

    Args:
        node: the learner's, spun by an executor in another thread.
        config: which bridge, and by which transport.
    """

    def __init__(self, node: Any, config: BridgeConfig) -> None:
        self._node, self._config = node, config
        self._changed = threading.Condition()
        self._announced: Mapping[str, Any] | None = None
        self._subscription = node.create_subscription(
            String, f"{config.attach}/{PORT}", self._on_announcement, qos.LATCHED
        )

    def connect(self, timeout_s: float) -> Channel:
        """Return a connection to the bridge, once there is one; see the protocol."""
        self._node.get_logger().info(f"waiting for the bridge '{self._config.attach}'")
        deadline = time.monotonic() + timeout_s
        reason = "it has not announced itself"
        while (left_s := deadline - time.monotonic()) > 0.0:
            with self._changed:
                if self._announced is None:
                    self._changed.wait(min(WAIT_S, left_s))
                announced = self._announced
            if announced is None:
                continue
            try:
                channel = self._connected(announced, left_s)
            except BridgeError as problem:  # perhaps one that is gone; the next one may be near
                reason = str(problem)
                with self._changed:
                    if self._announced is announced:
                        self._changed.wait(min(WAIT_S, max(0.0, deadline - time.monotonic())))
                continue
            self._node.get_logger().info(f"attached to {channel.peer} on {announced['host']}")
            return channel
        raise BridgeError(
            f"no bridge '{self._config.attach}' within {timeout_s:g} s: {reason}",
            remedy="start it: ros2 run grpo_ros batch_bridge with the learner's settings",
        )

    def close(self) -> None:
        """Stop listening; the bridge stays; idempotent."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _connected(self, announced: Mapping[str, Any], timeout_s: float) -> Channel:
        wanted, offered = self._config.transport, announced["transport"]
        if offered != wanted:
            raise BridgeError(
                f"the bridge offers transport '{offered}'",
                expected=f"'{wanted}'",
                remedy="give both the same bridge.transport",
            )
        if wanted == "shared_memory":
            here = socket.gethostname()
            if announced["host"] != here:
                raise BridgeError(
                    f"the bridge is on host '{announced['host']}', the learner on '{here}'",
                    expected="one host for shared memory",
                    remedy="give both bridge.transport=messages",
                )
            connection = local_socket.connect(announced["socket"], timeout_s)
            return SharedMemoryChannel(connection, timeout_s)
        if announced["message_type"] not in CODECS:
            raise BridgeError(
                f"the bridge sends {announced['message_type']}", expected=" | ".join(CODECS)
            )
        channel = MessageChannel(
            self._node,
            self._config.attach,
            announced["message_type"],
            announced["epoch"],
            self._present_epoch,
        )
        try:
            channel.request(Message({"operation": HELLO}), min(HELLO_S, timeout_s))
        except BaseException:
            channel.close()
            raise
        return channel

    def _present_epoch(self) -> int:
        announced = self._announced
        return -1 if announced is None else int(announced["epoch"])

    def _on_announcement(self, message: String) -> None:
        try:
            announced = json.loads(message.data)
            wrong = [k for k, kind in ANNOUNCED.items() if not isinstance(announced[k], kind)]
            if wrong:
                raise TypeError(f"of another type: {', '.join(wrong)}")
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            self._node.get_logger().warning(
                f"an announcement cannot be read: {problem!r}", once=True
            )
            return
        with self._changed:
            self._announced = announced
            self._changed.notify_all()
