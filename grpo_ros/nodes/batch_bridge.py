"""Batch bridge: owns the simulator of a run; a learner elsewhere trains in it.

A learner finds it by its announcement. On one host requests and answers then go through shared
memory, and a socket carries their sequence numbers: that wakes either side sooner than a topic
would, and tells at once of a process that was killed. Between hosts they are messages.
The node is not called `simulator_bridge`, since the learner's process already shows the robot
under that name.

Publishes:
    ~/port (std_msgs/String, latched): JSON with host, pid, socket, epoch (new at every start),
        task, contract_hash, transport, message_type.
    ~/response (isaac_ros_tensor_list_interfaces/TensorList, where that package is, else
        std_msgs/UInt8MultiArray): answers, with bridge.transport=messages.
Subscribes:
    ~/request (the same): a learner's requests.
Parameters: none; the settings are the learner's, and given as the learner's are.

One learner at a time is served; when it is gone the next one. SIGINT ends the node once its
learner is done, since a Ctrl-C reaches both and the learner still finishes its iteration; SIGTERM
ends it at once. Exit code 0 either way.

    ros2 run grpo_ros batch_bridge task=pick_place
    ros2 run grpo_ros learner task=pick_place placement=separate bridge.attach=batch_bridge
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from rclpy.node import Node
from rclpy.utilities import remove_ros_args
from std_msgs.msg import String

from grpo_ros.configuration import load_config
from grpo_ros.errors import BridgeError
from grpo_ros.nodes.shared import qos
from grpo_ros.nodes.shared.process import leave, spinning
from grpo_ros.nodes.training.batch_port import PORT
from grpo_ros.nodes.training.exchange import ServedMessages
from grpo_ros.nodes.training.tensor_messages import CODECS
from grpo_ros.serve import served_simulator
from grpo_ros.simulators.remote import local_socket
from grpo_ros.simulators.remote.serving import POLL_S, serve
from grpo_ros.simulators.remote.shared_memory import ServedSharedMemory
from grpo_ros.training.settings import TrainConfig


class BatchBridge(Node):
    """See the module's docstring. The simulator belongs to the thread that calls `serve`.

    Args:
        config: the run's.
        kwargs: of rclpy.node.Node.
    """

    def __init__(self, config: TrainConfig, **kwargs: Any) -> None:
        super().__init__("batch_bridge", **kwargs)
        self.config, self.served = config, served_simulator(config)
        self.epoch = secrets.randbits(62)
        self._port = self.create_publisher(String, f"~/{PORT}", qos.LATCHED)

    def serve(self, is_stopping: Callable[[], bool], must_stop: Callable[[], bool]) -> None:
        """Serve learners, one after the other.

        Args:
            is_stopping: whether to end once no learner is there.
            must_stop: whether to end at once.
        """
        try:
            if self.config.bridge.transport == "messages":
                message_type = list(CODECS)[-1]
                channel = ServedMessages(self, message_type, self.epoch)
                self._announce(message_type=message_type)

                def has_ended() -> bool:
                    return must_stop() or (is_stopping() and not channel.has_learner)

                serve(channel, self.served, has_ended)
            else:
                self._serve_shared_memory(is_stopping, must_stop)
        finally:
            self.served.close()

    def _serve_shared_memory(
        self, is_stopping: Callable[[], bool], must_stop: Callable[[], bool]
    ) -> None:
        listener, name = local_socket.listen()
        with listener:
            self._announce(socket=name)
            while not is_stopping():
                connection = local_socket.accept(listener, POLL_S)
                if connection is None:
                    continue
                self.get_logger().info("a learner has come")
                with connection:
                    try:
                        channel = ServedSharedMemory(connection, self.epoch)
                    except BridgeError:
                        continue
                    serve(channel, self.served, must_stop)
                    channel.close()
                self.get_logger().info("the learner is gone")

    def _announce(self, **entries: str) -> None:
        announcement = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "epoch": self.epoch,
            "task": self.config.task,
            "contract_hash": self.served.contract.sha256 if self.served.contract else "",
            "transport": self.config.bridge.transport,
            "socket": "",
            "message_type": "",
            **entries,
        }
        self._port.publish(String(data=json.dumps(announcement)))
        self.get_logger().info(
            f"task '{self.config.task}' in '{self.config.simulator}', "
            f"transport '{self.config.bridge.transport}': ready for a learner"
        )


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    argv = list(sys.argv if args is None else [sys.argv[0], *args])
    options = _options(remove_ros_args(argv)[1:])
    torch.set_num_threads(1)

    def make() -> BatchBridge:
        return BatchBridge(load_config(options.settings, options.config))

    with spinning(make, args=argv) as process:
        at_once = threading.Event()

        def stop(*_: Any) -> None:
            at_once.set()
            process.request_stop()

        signal.signal(signal.SIGTERM, stop)
        process.node.serve(process.stopping.is_set, at_once.is_set)
        return process.exit_code


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="batch_bridge", description="Own a run's simulator.")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings of training")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings")
    return parser.parse_args(argv)


if __name__ == "__main__":
    leave(main())
