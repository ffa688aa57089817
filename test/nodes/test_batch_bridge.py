"""A simulator in a node of its own: found by its announcement, the same bits, found again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from deploy_helpers import DEADLINE_S, Client, NodeProcess, running_client  # noqa: E402
from std_msgs.msg import String, UInt8MultiArray  # noqa: E402

from grpo_ros.configuration import load_config  # noqa: E402
from grpo_ros.errors import BridgeError  # noqa: E402
from grpo_ros.nodes.training import tensor_messages  # noqa: E402
from grpo_ros.nodes.training.batch_port import BatchPort  # noqa: E402
from grpo_ros.randomness import Key, normal  # noqa: E402
from grpo_ros.serve import served_simulator  # noqa: E402
from grpo_ros.simulators.base import Simulator  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.simulators.remote.simulator import RemoteSimulator  # noqa: E402
from grpo_ros.simulators.remote.wire import Message  # noqa: E402
from grpo_ros.tasks.pick_place import PickPlace  # noqa: E402
from grpo_ros.training.settings import BridgeConfig  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
N = 4


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with running_client() as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], NodeProcess]]:
    """Starts bridges that are ended with the test, whatever state they are in."""
    started: list[NodeProcess] = []

    def run(transport: str) -> NodeProcess:
        settings = ("task=pick_place", "num_threads=1", f"bridge.transport={transport}")
        log = tmp_path / f"{len(started)}.log"
        started.append(NodeProcess("batch_bridge", log, settings=settings))
        return started[-1]

    yield run
    for process in started:
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGCONT)
            assert process.stop() == 0, process.output
        assert "Traceback" not in process.output


def remote(client: Client, transport: Any, timeout_s: float = DEADLINE_S) -> RemoteSimulator:
    config = BridgeConfig(attach="batch_bridge", transport=transport)
    return RemoteSimulator(
        PickPlace(), N, BatchPort(client.node, config), timeout_s, 2 * DEADLINE_S
    )


def trajectory(simulator: Simulator) -> list[str]:
    """Return the state's hashes along one trajectory of every environment."""
    keys = [Key(3, 0, group) for group in range(N)]
    simulator.reset(simulator.task.sample(keys), None, keys)
    contract = simulator.contract
    chunks = normal("test", keys, (3, contract.chunk_size, contract.action_size))
    hashes = []
    for i in range(chunks.shape[1]):
        simulator.step(chunks[:, i])
        hashes += simulator.snapshot().row_hashes()
    return hashes


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """The trajectory of the simulator in this process."""
    composed = MujocoSimulator(PickPlace(), N, MujocoConfig(num_threads=1))
    hashes = trajectory(composed)
    composed.close()
    return hashes


def test_learners_come_and_go_over_shared_memory(
    client: Client, start: Callable[[str], NodeProcess], expected: list[str]
) -> None:
    bridge = start("shared_memory")
    for _ in range(2):
        simulator = remote(client, "shared_memory")
        assert trajectory(simulator) == expected
        simulator.close()
    expect_to_end_with_its_learner(bridge, remote(client, "shared_memory"))


def test_an_announcement_that_lacks_what_a_learner_needs_is_passed_over(client: Client) -> None:
    """From another version, or from a stranger: a learner goes on waiting for its bridge."""
    port = BatchPort(client.node, BridgeConfig(attach="nobody", transport="messages"))
    sound = {"host": socket.gethostname(), "epoch": 7, "socket": "gone", "message_type": "none"}
    sound["transport"] = "messages"
    wrong = [json.dumps({k: v for k, v in sound.items() if k != name}) for name in sound]
    wrong += [json.dumps({**sound, "epoch": value}) for value in ("one", "7", None, 1.5, [])]
    wrong += [json.dumps({**sound, "message_type": []}), "{}", "[]", "7", "{", "[" * 100_000]
    for text in wrong:
        port._on_announcement(String(data=text))
    with pytest.raises(BridgeError, match="it has not announced itself"):
        port.connect(0.1)
    port._on_announcement(String(data=json.dumps(sound)))
    with pytest.raises(BridgeError, match="the bridge sends none"):
        port.connect(0.1)
    port.close()


def expect_to_end_with_its_learner(bridge: NodeProcess, simulator: RemoteSimulator) -> None:
    """Check that a Ctrl-C lets the learner finish what it is at."""
    bridge.process.send_signal(signal.SIGINT)
    simulator.observe()
    with pytest.raises(subprocess.TimeoutExpired):
        bridge.wait(1.0)
    simulator.observe()
    simulator.close()
    assert bridge.wait() == 0


def test_over_messages_a_bridge_that_stalled_or_was_killed_is_found_again(
    client: Client, start: Callable[[str], NodeProcess], expected: list[str]
) -> None:
    first = start("messages")
    simulator = remote(client, "messages", timeout_s=4.0)
    assert trajectory(simulator) == expected
    middle = simulator.snapshot()
    with pytest.raises(BridgeError, match="offers transport 'messages'.*same bridge.transport"):
        BatchPort(client.node, BridgeConfig(attach="batch_bridge")).connect(2.0)

    os.kill(first.process.pid, signal.SIGSTOP)
    with pytest.raises(BridgeError, match="'scene': the bridge 'batch_bridge' did not answer"):
        simulator.scene()
    os.kill(first.process.pid, signal.SIGCONT)
    simulator.reconnect()
    assert trajectory(simulator) == expected

    first.process.kill()
    first.wait()
    second = start("messages")
    with pytest.raises(BridgeError, match="'scene': .*(was restarted|did not answer)"):
        simulator.scene()
    simulator.reconnect()
    simulator.restore(middle, range(N))
    assert simulator.snapshot().row_hashes() == middle.row_hashes()
    assert trajectory(simulator) == expected
    expect_to_end_with_its_learner(second, simulator)


@pytest.mark.parametrize("codec", tensor_messages.CODECS.values(), ids=tensor_messages.CODECS)
def test_messages_hold_every_dtype_shape_and_bit(codec: Any) -> None:
    served = served_simulator(load_config(["task=pick_place", "num_threads=1"]))
    opened = {"task": "pick_place", "num_envs": N, "contract_hash": served.contract.sha256}
    served.answer(Message({"operation": "open", **opened}))
    message = served.answer(Message({"operation": "snapshot", "env_ids": None}))
    served.close()
    found = codec.decode(codec.encode(message))
    assert found.fields == message.fields and found.tensors.keys() == message.tensors.keys()
    for name, value in message.tensors.items():
        assert found.tensors[name].dtype == value.dtype and found.tensors[name].equal(value), name


@pytest.mark.parametrize("codec", tensor_messages.CODECS.values(), ids=tensor_messages.CODECS)
def test_a_message_that_cannot_be_read_is_a_named_error(codec: Any) -> None:
    received = codec.kind()
    if codec.kind is UInt8MultiArray:
        received.data = [1, 2, 3]
    with pytest.raises(BridgeError, match="cannot be read"):
        codec.decode(received)
