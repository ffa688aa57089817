"""The block and its socket: they grow, hold to their bound, and believe nothing."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch

from grpo_ros.errors import BridgeError, ConfigurationError
from grpo_ros.simulators.remote import local_socket, shared_memory
from grpo_ros.simulators.remote.messages import error_fields
from grpo_ros.simulators.remote.shared_memory import (
    RING,
    Block,
    ServedSharedMemory,
    SharedMemoryChannel,
    refuse,
)
from grpo_ros.simulators.remote.wire import Message


@pytest.fixture
def pair():
    """Both ends of a connection."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def connected(pair):
    """A bridge's and a learner's end that have greeted each other."""
    served = ServedSharedMemory(pair[1], epoch=5)
    channel = SharedMemoryChannel(pair[0], 1.0)
    yield served, channel, pair[1]
    channel.close()
    served.close()


def _ring(connected, message):
    """Send a request; return what the bridge got, without waiting for its answer."""
    served, channel, _ = connected
    with pytest.raises(BridgeError, match="did not answer within 0.001 s"):
        channel.request(message, 0.001)
    return served.receive(1.0)


def test_a_block_grows_for_what_does_not_fit_and_both_ends_see_it(pair):
    mine = Block.create(3)
    theirs = Block.attach(os.dup(mine.descriptor), 3)
    for turn, size in enumerate((10, 5_000_000, 20, 9_000_000, 0)):
        value = torch.arange(size, dtype=torch.int64).to(torch.uint8)
        writer, reader = (mine, theirs) if turn % 2 else (theirs, mine)
        writer.write(Message({"turn": turn}, {"x": value}), turn, turn)
        found = reader.read(turn, turn)
        assert found.fields == {"turn": turn} and found.tensors["x"].equal(value)
    mine.close()
    theirs.close()


def test_a_message_beyond_the_bound_is_refused_by_name(connected, monkeypatch):
    monkeypatch.setattr(shared_memory, "MAX_BYTES", 2 << 20)
    with pytest.raises(BridgeError, match=r"a message of 30\d+ bytes; expected at most 2093056"):
        connected[1].request(Message(tensors={"x": torch.zeros(3_000_000).byte()}), 1.0)


def test_an_answer_beyond_the_bound_becomes_the_error_that_is_answered(connected, monkeypatch):
    _ring(connected, Message({"operation": "render"}))
    monkeypatch.setattr(shared_memory, "MAX_BYTES", 2 << 20)
    connected[0].answer(Message(tensors={"x": torch.zeros(3_000_000).byte()}))
    assert connected[1]._block.read(1, 1).fields["error"][0] == "BridgeError"


def test_the_bridge_gets_what_was_asked(connected):
    request = Message({"operation": "step"}, {"chunk": torch.randn(2, 3)})
    found = _ring(connected, request)
    assert found.fields == request.fields and found.tensors["chunk"].equal(
        request.tensors["chunk"]
    )


def test_a_request_that_nobody_took_up_is_told_from_one_that_takes_long(connected):
    served, channel, _ = connected
    with pytest.raises(BridgeError, match="within 0.01 s; it never took it up; raise bridge"):
        channel.request(Message(), 0.01)
    served.receive(1.0)
    assert channel._block.silent_s < 1.0


@pytest.mark.parametrize("garbage", [b"x", b"", RING.pack(7), b"x" * 64], ids=len)
def test_garbage_on_the_socket_is_a_named_error_at_the_learner(connected, garbage):
    _, channel, theirs = connected
    theirs.send(garbage)
    with pytest.raises(BridgeError, match="rings|is gone"):
        channel.request(Message(), 1.0)


@pytest.mark.parametrize("garbage", [b"x", RING.pack(0), b"x" * 64], ids=len)
def test_garbage_on_the_socket_ends_the_bridges_side(connected, pair, garbage):
    pair[0].send(garbage)
    with pytest.raises(BridgeError, match="the learner rings"):
        connected[0].receive(1.0)


@pytest.mark.parametrize("place", [0, 8], ids=["magic", "epoch"])
def test_memory_that_another_start_of_the_bridge_wrote_is_refused(connected, place):
    served, channel, theirs = connected
    served._block._map[place] ^= 1
    theirs.send(RING.pack(1))
    with pytest.raises(BridgeError, match="shared memory of .* epoch .*expected"):
        channel._block.read(1, 1)


HELLOS = {
    "garbage": b"\xff\x00",
    "no object": b"[]",
    "no number": json.dumps({"version": "x", "pid": 1, "epoch": 2}).encode(),
    "another version": json.dumps({"version": 99, "pid": 1, "epoch": 2}).encode(),
    "no memory": json.dumps({"version": shared_memory.VERSION, "pid": 1, "epoch": 2}).encode(),
}


@pytest.mark.parametrize("hello", HELLOS.values(), ids=HELLOS)
def test_a_greeting_that_is_none_is_refused(pair, hello):
    pair[1].send(hello)
    with pytest.raises(BridgeError, match="greets with|speaks version|no block of shared memory"):
        SharedMemoryChannel(pair[0], 1.0)


def test_memory_that_could_be_cut_off_while_it_is_read_is_refused(pair):
    descriptor = os.memfd_create("unsealed")
    os.ftruncate(descriptor, 1 << 20)
    hello = {"version": shared_memory.VERSION, "pid": 1, "epoch": 2}
    socket.send_fds(pair[1], [json.dumps(hello).encode()], [descriptor])
    os.close(descriptor)
    with pytest.raises(BridgeError, match="no block of shared memory"):
        SharedMemoryChannel(pair[0], 1.0)


def test_a_bridge_that_does_not_greet_in_time_is_a_named_error(pair):
    with pytest.raises(BridgeError, match=r"ready within 0.01 s; raise bridge.start_timeout_s"):
        SharedMemoryChannel(pair[0], 0.01)


def test_a_bridge_that_refuses_says_why(pair):
    refuse(pair[1], error_fields(ConfigurationError("'task' = 'x'", expected="pick_place")))
    with pytest.raises(ConfigurationError, match="'task' = 'x'; expected pick_place"):
        SharedMemoryChannel(pair[0], 1.0)


def test_a_running_bridge_is_found_by_its_name_and_leaves_no_file():
    listener, name = local_socket.listen()
    ours = local_socket.connect(name, 1.0)
    theirs = local_socket.accept(listener, 1.0)
    served, channel = ServedSharedMemory(theirs, 1), SharedMemoryChannel(ours, 1.0)
    assert channel.peer == f"process {os.getpid()}"
    assert name not in Path("/proc/net/unix").read_text().replace(f"@{name}", "")
    channel.close()
    served.close()
    assert local_socket.accept(listener, 0.0 + 1e-3) is None
    listener.close()
    with pytest.raises(BridgeError, match="no bridge of this user listens"):
        local_socket.connect(name, 1.0)
