"""Node processes for tests: own domain, deadlines everywhere, SIGTERM and join."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from grpo_ros.contract import Contract
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.policies import make_policy
from grpo_ros.policies.gaussian import GaussianConfig
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig

DEADLINE_S = 30.0
START_S = 90.0
"""For a process to import and come up, on a machine that others load."""
SETTLE_S = 0.3
"""A server that has not discovered its client yet loses the answer: wait before the first call."""
ENVIRONMENT = {
    "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",  # leaves no shared memory behind
    "OMP_NUM_THREADS": "1",
}
SMALL_TRAINING = {
    "collection.num_groups": 2,
    "collection.group_size": 2,
    "demonstrations.episodes": 2,
    "behaviour_cloning.num_steps": 20,
    "evaluation.episodes": 4,
    "evaluation.final_episodes": 4,
    "film": "false",
}
"""Settings of a training of seconds, but for its length."""
ENDLESS_TRAINING = {
    **SMALL_TRAINING,
    "collection.env_steps": 100_000_000,
    "evaluation.every_iterations": 1000,
}


def arguments_of(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as a command line has them."""
    return [f"{key}={value}" for key, value in settings.items()]


def export_untrained(
    path: Path,
    horizon: int = 12,
    edit: Callable[[Contract], Contract] = lambda contract: contract,
    **settings: Any,
) -> Path:
    """Write an untrained policy with large weights, so that it moves; return its path.

    Args:
        path: of the file. horizon, settings: of the task. edit: changes its contract.
    """
    contract = edit(PickPlace(PickPlaceConfig(horizon=horizon, **settings)).contract())
    policy = make_policy(GaussianConfig(), contract, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(3.0 if weight.ndim == 2 else 1.0)
    export_policy(policy, contract, path)
    return path


class NodeProcess:
    """One node in a process of its own.

    Attributes:
        running: all that were started and not stopped yet.
    """

    running: ClassVar[set[NodeProcess]] = set()

    def __init__(
        self,
        name: str,
        log: Path,
        namespace: str = "/",
        settings: Sequence[str] = (),
        **parameters: Any,
    ) -> None:
        self.name, self.log = name, log
        values = [f"{key}:={_text(value)}" for key, value in parameters.items()]
        options = [part for value in values for part in ("-p", value)]
        options += ["-r", f"__ns:={namespace}"]
        command = [sys.executable, "-m", f"grpo_ros.nodes.{name}"]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *settings, "--ros-args", *options],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENVIRONMENT},
            )
        self.running.add(self)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Return the exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """Send SIGTERM, join, return the exit code; SIGKILL only after the deadline."""
        self.running.discard(self)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    @property
    def output(self) -> str:
        """What it logged so far."""
        return self.log.read_text()


class Client:
    """A node in this process that calls, listens and waits with deadlines."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self._heard: dict[str, list[Any]] = {}
        self._clients: dict[str, Any] = {}
        self._changed = threading.Condition()

    def call(self, kind: Any, name: str, request: Any = None) -> Any:
        """Call a service and return its response."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
            assert client.wait_for_service(START_S), f"no service {name}"
            time.sleep(SETTLE_S)
        return self.join(client.call_async(request or kind.Request()))

    def listen(self, kind: Any, topic: str, profile: Any) -> None:
        """Keep every message of a topic."""
        heard = self._heard.setdefault(topic, [])

        def on_message(message: Any) -> None:
            with self._changed:
                heard.append(message)
                self._changed.notify_all()

        self.node.create_subscription(kind, topic, on_message, profile)

    def wait_for_publisher(self, topic: str) -> None:
        """Return once a publisher of the topic is known, and has had time to know of us."""
        deadline = time.monotonic() + START_S
        while not self.node.count_publishers(topic):
            assert time.monotonic() < deadline, f"nobody publishes {topic}"
            time.sleep(0.05)
        time.sleep(SETTLE_S)

    def heard(self, topic: str) -> list[Any]:
        """Return what came so far."""
        with self._changed:
            return list(self._heard[topic])

    def forget(self) -> None:
        """Forget what came so far."""
        with self._changed:
            for heard in self._heard.values():
                heard.clear()

    def wait_for(self, topic: str, predicate: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the first message, past ones included, for which the predicate holds."""
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while time.monotonic() < deadline:
                for message in self._heard[topic]:
                    if predicate(message):
                        return message
                self._changed.wait(0.2)
        raise AssertionError(f"nothing on {topic} fits; last: {self._heard[topic][-1:]}")

    def send_goal(self, kind: Any, name: str, goal: Any) -> Any:
        """Send a goal; return its result response once it has ended."""
        from rclpy.action import ActionClient

        client = ActionClient(self.node, kind, name)
        assert client.wait_for_server(DEADLINE_S), f"no action {name}"
        handle = self.join(client.send_goal_async(goal))
        result = self.join(handle.get_result_async()) if handle.accepted else None
        client.destroy()
        return handle.accepted, result

    @staticmethod
    def join(future: Any) -> Any:
        """Wait for a future; return its result."""
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(DEADLINE_S)
        return future.result()


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and put back what was there before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def running_client() -> Iterator[Client]:
    """Spin a client in the domain of the node processes."""
    from rclpy.node import Node

    from grpo_ros.nodes.shared.process import spinning

    with environment(ENVIRONMENT), spinning(lambda: Node("test_client"), args=[]) as process:
        yield Client(process.node)


def values_of(status: Any) -> Mapping[str, str]:
    """Return a diagnostic status' values by key."""
    return {pair.key: pair.value for pair in status.values}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
