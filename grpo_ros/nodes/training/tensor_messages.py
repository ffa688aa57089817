"""Requests and answers of the batch port as ROS messages.

TensorList, where `isaac_ros_tensor_list_interfaces` is installed: its first tensor is JSON, the
others are the message's own. Elsewhere the same bytes as in shared memory, in a UInt8MultiArray.
"""

from __future__ import annotations

import json
import math
from array import array
from typing import Any

import torch
from std_msgs.msg import UInt8MultiArray
from torch import Tensor

from grpo_ros.errors import BridgeError
from grpo_ros.simulators.remote import wire
from grpo_ros.simulators.remote.wire import Message

try:
    from isaac_ros_tensor_list_interfaces.msg import Tensor as TensorMessage
    from isaac_ros_tensor_list_interfaces.msg import TensorList, TensorShape
except ImportError:
    TensorList = None

FIELDS = "fields"
DATA_TYPES = {"uint8": 2, "bool": 2, "int32": 5, "int64": 7, "float32": 9, "float64": 10}
"""Name of a dtype -> number in TensorList, which has no bool."""


class TensorLists:
    """To and from TensorList."""

    kind: Any = TensorList

    @staticmethod
    def encode(message: Message) -> Any:
        """Return a message as a TensorList."""
        dtypes = {name: wire.NAMES[value.dtype] for name, value in message.tensors.items()}
        text = json.dumps({"fields": message.fields, "dtypes": dtypes}).encode()
        tensors = [_tensor(FIELDS, "uint8", (len(text),), array("B", text))]
        for name, value in message.tensors.items():
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            data = array("B")
            data.frombytes(memoryview(flat.numpy()))
            tensors.append(_tensor(name, dtypes[name], tuple(value.shape), data))
        return TensorList(tensors=tensors)

    @staticmethod
    def decode(received: Any) -> Message:
        """Return the message in a TensorList.

        Raises:
            BridgeError: it holds none.
        """
        try:
            first, *others = received.tensors
            text = json.loads(bytes(first.data))
            fields, dtypes = dict(text["fields"]), dict(text["dtypes"])
            tensors = {other.name: _numbers(other, dtypes[other.name]) for other in others}
        except (ValueError, TypeError, KeyError, RecursionError) as problem:
            raise BridgeError(f"a TensorList cannot be read: {problem!r}") from None
        return Message(fields, tensors)


class Bytes:
    """To and from UInt8MultiArray."""

    kind: Any = UInt8MultiArray

    @staticmethod
    def encode(message: Message) -> Any:
        """Return a message as bytes."""
        received = UInt8MultiArray()
        received.data = array("B", wire.to_bytes(message))
        return received

    @staticmethod
    def decode(received: Any) -> Message:
        """Return the message in the bytes; raise BridgeError where there is none."""
        return wire.unpack(bytearray(received.data))


CODECS: dict[str, Any] = {"UInt8MultiArray": Bytes}
"""Name of a message type -> what speaks it here, best last."""
if TensorList is not None:
    CODECS["TensorList"] = TensorLists


def _tensor(name: str, dtype: str, shape: tuple[int, ...], data: array[int]) -> Any:
    message = TensorMessage(name=name, data_type=DATA_TYPES[dtype])
    message.shape = TensorShape(rank=len(shape), dims=array("I", shape))
    size = wire.DTYPES[dtype].itemsize
    message.strides = array("Q", [size * math.prod(shape[i + 1 :]) for i in range(len(shape))])
    message.data = data
    return message


def _numbers(received: Any, dtype: str) -> Tensor:
    shape, kind = [int(size) for size in received.shape.dims], wire.DTYPES[dtype]
    if len(received.data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"'{received.name}' {shape} has {len(received.data)} bytes")
    if not len(received.data):
        return torch.empty(shape, dtype=kind)
    numbers = torch.frombuffer(bytearray(received.data), dtype=torch.uint8)
    return (numbers.ne(0) if kind is torch.bool else numbers.view(kind)).view(shape)
