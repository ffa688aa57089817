"""A channel on one host: a block of shared memory, and a socket that rings.

The block is an anonymous file (memfd) that the bridge makes for each connection and hands over
through the socket, so it has no name in /dev/shm and is gone with the last of both processes,
however they end. The socket carries the sequence number of each request and each answer; it wakes
the other side at once, and its end tells of a peer that was killed. Of both sides only one writes
at a time, so requests and answers share the room behind the header; a message that needs more
makes the block grow, never shrink (it is sealed), and the reader maps it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import socket
import struct
import time
from typing import Any

from grpo_ros.errors import BridgeError
from grpo_ros.simulators.remote.messages import error_fields, raise_error
from grpo_ros.simulators.remote.wire import Message, pack, unpack

VERSION = 1
MAGIC = b"GRPOSHM1"
HEADER = struct.Struct("<8sQQQQQ")
"""Magic, epoch, sequence number of the request, of the answer, time of the last sign of life in
CLOCK_MONOTONIC ns, bytes of the message."""
ROOM = 4096
"""Where the message begins."""
FIRST_BYTES = 1 << 20
MAX_BYTES = 2 << 30
"""A message of more is refused."""
RING = struct.Struct("<Q")
HELLO_BYTES = 1 << 16


class Block:
    """Shared memory with a header and one message.

    Args:
        descriptor: of the memory; closed by `close`.
        epoch: of the bridge that made it.
    """

    def __init__(self, descriptor: int, epoch: int) -> None:
        self._descriptor, self.epoch = descriptor, epoch
        self._map = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    @classmethod
    def create(cls, epoch: int) -> Block:
        """Return a new block."""
        descriptor = os.memfd_create("grpo_ros", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, FIRST_BYTES)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        block = cls(descriptor, epoch)
        HEADER.pack_into(block._map, 0, MAGIC, epoch, 0, 0, time.monotonic_ns(), 0)
        return block

    @classmethod
    def attach(cls, descriptor: int, epoch: int) -> Block:
        """Return the block that a peer made.

        Raises:
            BridgeError: it is none, or could be cut off while it is read.
        """
        try:
            is_sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            is_sound = is_sealed and ROOM <= os.fstat(descriptor).st_size <= MAX_BYTES
        except OSError:
            is_sound = False
        if not is_sound:
            os.close(descriptor)
            raise BridgeError("the bridge handed over no block of shared memory")
        block = cls(descriptor, epoch)
        try:
            block._header()
        except BridgeError:
            block.close()
            raise
        return block

    @property
    def descriptor(self) -> int:
        """The memory's file descriptor."""
        return self._descriptor

    def write(self, message: Message, request: int, response: int) -> None:
        """Put a message in, growing if need be.

        Args:
            message: what to put in.
            request, response: sequence numbers of the last request and of the last answer.

        Raises:
            BridgeError: the message is larger than a block may be.
        """
        packed = pack(message)
        if ROOM + packed.size > MAX_BYTES:
            raise BridgeError(
                f"a message of {packed.size} bytes", expected=f"at most {MAX_BYTES - ROOM}"
            )
        if ROOM + packed.size > len(self._map):
            size = min(MAX_BYTES, 1 << (ROOM + packed.size - 1).bit_length())
            os.ftruncate(self._descriptor, max(size, os.fstat(self._descriptor).st_size))
            self._remap()
        packed.write(memoryview(self._map)[ROOM:])
        now = time.monotonic_ns()
        HEADER.pack_into(self._map, 0, MAGIC, self.epoch, request, response, now, packed.size)

    def read(self, request: int, response: int) -> Message:
        """Return a copy of the message.

        Raises:
            BridgeError: it is not that of these sequence numbers, or cannot be read.
        """
        found = self._header()
        if found[:2] != (request, response):
            raise BridgeError(f"request and answer {found[:2]}", expected=f"{request, response}")
        size = found[3]
        if ROOM + size > len(self._map):
            self._remap()
        if ROOM + size > len(self._map):
            raise BridgeError(f"a message of {size} bytes in a block of {len(self._map)}")
        return unpack(memoryview(self._map)[ROOM : ROOM + size])

    def touch(self) -> None:
        """Note that the writer lives."""
        magic, epoch, request, response, _, size = HEADER.unpack_from(self._map)
        now = time.monotonic_ns()
        HEADER.pack_into(self._map, 0, magic, epoch, request, response, now, size)

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life, whose ever."""
        return (time.monotonic_ns() - self._header()[2]) / 1e9

    def close(self) -> None:
        """Give the memory back; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with contextlib.suppress(BufferError):  # an error's traceback may hold a view
                self._map.close()

    def _header(self) -> tuple[int, int, int, int]:
        """Return both sequence numbers, the stamp and the message's size."""
        magic, epoch, request, response, stamp, size = HEADER.unpack_from(self._map)
        if (magic, epoch) != (MAGIC, self.epoch):
            raise BridgeError(
                f"shared memory of {magic!r}, epoch {epoch:016x}",
                expected=f"{MAGIC!r}, epoch {self.epoch:016x}",
            )
        return request, response, stamp, size

    def _remap(self) -> None:
        size = os.fstat(self._descriptor).st_size
        if size > MAX_BYTES:
            raise BridgeError(f"a block of {size} bytes", expected=f"at most {MAX_BYTES}")
        self._map = mmap.mmap(self._descriptor, size)


class SharedMemoryChannel:
    """The learner's end; see `Channel`.

    Args:
        connection: a connected socket of packets; closed by `close`.
        timeout_s: how long the bridge may take until it is ready.

    Raises:
        BridgeError: it is not ready in time, or not a bridge of this version.
        GrpoRosError: the bridge could not start, and says why.
    """

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._socket, self._sequence = connection, 0
        self._block: Block | None = None
        self.peer = "the simulator's process"
        try:
            self._greet(timeout_s)
        except BaseException:
            self.close()
            raise

    def _greet(self, timeout_s: float) -> None:
        self._socket.settimeout(timeout_s)
        descriptors: list[int] = []
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, HELLO_BYTES, 1)
        except TimeoutError:
            raise BridgeError(
                f"no bridge was ready within {timeout_s:g} s",
                remedy="raise bridge.start_timeout_s, or see what the bridge wrote",
            ) from None
        except OSError as problem:
            raise self._gone(f"before it was ready ({problem.strerror})") from None
        if not data:
            raise self._gone("before it was ready")
        try:
            pid, epoch = _read_hello(data)
            if not descriptors:
                raise BridgeError("the bridge handed over no block of shared memory")
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self.peer = f"process {pid}"
        self._block = Block.attach(descriptors[0], epoch)

    def request(self, message: Message, timeout_s: float) -> Message:
        """Return the answer to a request; see the protocol."""
        if self._block is None:
            raise BridgeError(f"the connection to {self.peer} is closed")
        self._sequence += 1
        self._block.write(message, self._sequence, self._sequence - 1)
        self._socket.settimeout(timeout_s)
        began = time.monotonic()
        try:
            self._socket.send(RING.pack(self._sequence))
            rung = self._socket.recv(RING.size)
        except TimeoutError:
            waited_s, silent_s = time.monotonic() - began, self._block.silent_s
            has_begun = silent_s < waited_s  # the learner's own writing is a sign of life too
            state = f"took it up {silent_s:.1f} s ago" if has_begun else "never took it up"
            raise BridgeError(
                f"{self.peer} did not answer within {timeout_s:g} s; it {state}",
                remedy="raise bridge.timeout_s if the simulator may take longer",
            ) from None
        except OSError as problem:
            raise self._gone(f"({problem.strerror})") from None
        if not rung:
            raise self._gone(f"{time.monotonic() - began:.3f} s after it was asked")
        if rung != RING.pack(self._sequence):
            raise BridgeError(f"{self.peer} rings {rung!r}", expected=f"number {self._sequence}")
        return self._block.read(self._sequence, self._sequence)

    def close(self) -> None:
        """Hang up; the bridge notices."""
        self._socket.close()
        if self._block is not None:
            self._block.close()
            self._block = None

    def _gone(self, when: str) -> BridgeError:
        return BridgeError(f"{self.peer}, which owns the simulator, is gone {when}".rstrip())


class ServedSharedMemory:
    """The bridge's end; see `ServedChannel`.

    Args:
        connection: a connected socket of packets; closed by `close`.
        epoch: a number of this bridge's start.
    """

    def __init__(self, connection: socket.socket, epoch: int) -> None:
        self._socket, self._sequence = connection, 0
        self._block = Block.create(epoch)
        hello = json.dumps({"version": VERSION, "pid": os.getpid(), "epoch": epoch}).encode()
        with _leaving_is_an_error():
            socket.send_fds(connection, [hello], [self._block.descriptor])

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next request; see the protocol."""
        self._socket.settimeout(timeout_s)
        with _leaving_is_an_error():
            try:
                rung = self._socket.recv(2 * RING.size)
            except TimeoutError:
                return None
        if not rung:
            raise BridgeError("the learner is gone")
        if rung != RING.pack(self._sequence + 1):
            raise BridgeError(f"the learner rings {rung!r}", expected=f"{self._sequence + 1}")
        self._sequence += 1
        message = self._block.read(self._sequence, self._sequence - 1)
        self._block.touch()
        return message

    def answer(self, message: Message) -> None:
        """Answer the last request; see the protocol."""
        try:
            self._block.write(message, self._sequence, self._sequence)
        except BridgeError as problem:  # too large, or of a type that is not sent
            self._block.write(Message(error_fields(problem)), self._sequence, self._sequence)
        with _leaving_is_an_error():
            self._socket.send(RING.pack(self._sequence))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        self._block.close()


def refuse(connection: socket.socket, error: dict[str, Any]) -> None:
    """Tell a learner that there will be no bridge, and why; `error` as from `error_fields`."""
    with contextlib.suppress(OSError):
        connection.send(json.dumps(error).encode()[:HELLO_BYTES])


@contextlib.contextmanager
def _leaving_is_an_error() -> Any:
    try:
        yield
    except TimeoutError:
        raise
    except OSError as problem:
        raise BridgeError(f"the learner is gone ({problem.strerror})") from None


def _read_hello(data: bytes) -> tuple[int, int]:
    """Return a bridge's process and epoch; raise the error that it tells, or BridgeError."""
    try:
        hello = json.loads(data)
        raise_error(hello)
        version, pid, epoch = (int(hello[key]) for key in ("version", "pid", "epoch"))
    except (ValueError, TypeError, KeyError) as problem:
        raise BridgeError(f"the bridge greets with {data[:80]!r}") from problem
    if version != VERSION:
        raise BridgeError(
            f"the bridge speaks version {version}",
            expected=f"version {VERSION}",
            remedy="install the same version of this package in the bridge's environment",
        )
    return pid, epoch
