"""Messages between a learner and the process that owns its simulator, as bytes.

A message is JSON values and named tensors. Its bytes are a prefix (magic, length of the header,
length of the whole), a JSON header that lists name, dtype, shape and offset of each tensor, and
the tensors' numbers, each at a multiple of ALIGNMENT. Nothing is pickled, and since bytes from
another process are not to be trusted, everything is checked against the buffer before it is used.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from typing import Any

import torch
from torch import Tensor

from grpo_ros.errors import BridgeError

MAGIC = b"GRPO"
ALIGNMENT = 64
MAX_RANK = 8
PREFIX = struct.Struct("<4sIQ")
"""Magic, bytes of the header, bytes of the whole message."""
DTYPES = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int32": torch.int32,
    "int64": torch.int64,
    "float32": torch.float32,
    "float64": torch.float64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Message:
    """What is asked or answered.

    Attributes:
        fields: JSON values.
        tensors: name -> tensor; on any device when it is sent, on the CPU when it has come.
    """

    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Packed:
    """A message whose place in a buffer is known: `size` bytes, to be written by `write`."""

    head: bytes
    tensors: tuple[tuple[int, Tensor], ...]
    size: int

    def write(self, buffer: Any) -> None:
        """Copy the message to the start of a writable buffer of at least `size` bytes."""
        view = memoryview(buffer)
        view[: len(self.head)] = self.head
        for offset, tensor in self.tensors:
            _numbers(view, tensor.dtype, tuple(tensor.shape), offset).copy_(tensor.detach())


def pack(message: Message) -> Packed:
    """Lay a message out.

    Raises:
        BridgeError: a tensor has a dtype that is not sent.
    """
    listed: list[tuple[str, str, list[int], int]] = []
    offset = 0
    for name, tensor in message.tensors.items():
        if tensor.dtype not in NAMES:
            raise BridgeError(f"tensor '{name}' of {tensor.dtype}", expected=" | ".join(DTYPES))
        listed.append((name, NAMES[tensor.dtype], list(tensor.shape), offset))
        offset = _aligned(offset + tensor.numel() * tensor.element_size())
    header = json.dumps({"fields": message.fields, "tensors": listed}).encode()
    start = _aligned(PREFIX.size + len(header))
    places = ((start + at, message.tensors[name]) for name, _, _, at in listed)
    head = PREFIX.pack(MAGIC, len(header), start + offset) + header
    return Packed(head, tuple(places), start + offset)


def to_bytes(message: Message) -> bytearray:
    """Return a message as bytes of their own."""
    packed = pack(message)
    data = bytearray(packed.size)
    packed.write(data)
    return data


def unpack(buffer: Any) -> Message:
    """Return the message at the start of a buffer; its tensors are copies.

    Raises:
        BridgeError: the bytes are no message, or one that reaches beyond the buffer.
    """
    view = memoryview(buffer)
    if len(view) < PREFIX.size:
        raise _unreadable(f"it has {len(view)} bytes")
    magic, header_size, size = PREFIX.unpack_from(view)
    start = _aligned(PREFIX.size + header_size)
    if magic != MAGIC or not start <= size <= len(view):
        raise _unreadable(f"its prefix is {bytes(view[: PREFIX.size]).hex()}")
    try:
        header = json.loads(bytes(view[PREFIX.size : PREFIX.size + header_size]))
        fields, listed = dict(header["fields"]), [_entry(*entry) for entry in header["tensors"]]
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise _unreadable(f"{type(problem).__name__}: {problem}") from None
    tensors: dict[str, Tensor] = {}
    for name, dtype, shape, offset in listed:
        num_bytes = math.prod(shape) * dtype.itemsize
        if name in tensors or offset % ALIGNMENT or start + offset + num_bytes > size:
            raise _unreadable(f"tensor '{name}' {shape} at {offset} of {size} bytes")
        tensors[name] = _copy(view, dtype, shape, start + offset)
    return Message(fields, tensors)


def _entry(name: str, dtype: str, shape: list[int], offset: int) -> Any:
    numbers = [*shape, offset]
    if not isinstance(name, str) or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
        raise ValueError(f"a tensor is listed as {name!r}, {dtype!r}, {shape!r}, {offset!r}")
    if len(shape) > MAX_RANK:
        raise ValueError(f"tensor '{name}' has {len(shape)} dimensions")
    return name, DTYPES[dtype], tuple(shape), offset


def _numbers(view: memoryview, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
    """Return a tensor that lies in the buffer."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(view, dtype=dtype, count=count, offset=offset).view(shape)


def _copy(view: memoryview, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
    if dtype is torch.bool:  # any other byte than 0 and 1 would be no bool at all
        return _numbers(view, torch.uint8, shape, offset).ne(0)
    return _numbers(view, dtype, shape, offset).clone()


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _unreadable(why: str) -> BridgeError:
    return BridgeError(
        f"a message of the simulator's bridge cannot be read: {why}",
        remedy="learner and bridge have to run the same version of this package",
    )
