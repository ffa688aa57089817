"""Messages keep every bit, and bytes that are none are refused, whatever they are."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.errors import BridgeError
from grpo_ros.simulators.remote import wire
from grpo_ros.simulators.remote.wire import Message, pack, to_bytes, unpack

MESSAGE = Message(
    {"operation": "step", "ids": [1, 2**62, -3], "none": None, "x": 0.1},
    {
        "nan": torch.tensor([math.nan, -0.0, math.inf]),
        "empty": torch.empty(0, 3, dtype=torch.float64),
        "scalar": torch.tensor(7),
        "flags": torch.tensor([[True, False]]),
        "images": torch.arange(240, dtype=torch.uint8).view(2, 5, 8, 3),
        "turned": torch.arange(6, dtype=torch.int32).view(2, 3).T,
    },
)


def test_a_message_keeps_names_dtypes_shapes_and_bits():
    found = unpack(to_bytes(MESSAGE))
    assert found.fields == MESSAGE.fields and list(found.tensors) == list(MESSAGE.tensors)
    for name, value in MESSAGE.tensors.items():
        assert found.tensors[name].dtype == value.dtype, name
        assert found.tensors[name].shape == value.shape, name
        assert found.tensors[name].numpy().tobytes() == value.contiguous().numpy().tobytes(), name


def test_tensors_are_aligned_and_do_not_alias_the_buffer():
    assert all(offset % wire.ALIGNMENT == 0 for offset, _ in pack(MESSAGE).tensors)
    data = to_bytes(MESSAGE)
    found = unpack(data)
    data[:] = bytes(len(data))
    assert found.tensors["scalar"] == 7 and found.tensors["flags"][0, 0]


def test_a_dtype_that_is_not_sent_is_named():
    with pytest.raises(BridgeError, match="tensor 'z' of torch.complex64.*float32"):
        pack(Message(tensors={"z": torch.zeros(1, dtype=torch.complex64)}))


WHOLE = bytes(to_bytes(MESSAGE))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=8))
def test_damaged_bytes_give_a_message_or_a_named_error(changes):
    data = bytearray(WHOLE)
    for place, value in changes:
        data[place] = value
    try:
        unpack(data)
    except BridgeError as problem:
        assert "cannot be read" in str(problem)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_message_cut_short_is_a_named_error(size):
    with pytest.raises(BridgeError, match="cannot be read"):
        unpack(bytearray(WHOLE[:size]))


LIES = {
    "beyond the end": [["a", "float32", [1000], 0]],
    "twice": [["a", "uint8", [1], 0], ["a", "uint8", [1], 0]],
    "not aligned": [["a", "uint8", [1], 1]],
    "before the start": [["a", "uint8", [1], -64]],
    "negative": [["a", "uint8", [-1], 0]],
    "overflow": [["a", "float64", [2**40, 2**40], 0]],
    "a float": [["a", "uint8", [1.0], 0]],
    "a flag": [["a", "uint8", [True], 0]],
    "many dimensions": [["a", "uint8", [1] * 9, 0]],
    "no dtype": [["a", "object", [1], 0]],
    "no shape": [["a", "uint8", None, 0]],
    "no list": 3,
    "no entries": [1, 2],
}


@pytest.mark.parametrize("listed", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_a_named_error(listed):
    header = json.dumps({"fields": {}, "tensors": listed}).encode()
    start = -(-(wire.PREFIX.size + len(header)) // wire.ALIGNMENT) * wire.ALIGNMENT
    data = bytearray(start + 64)
    data[: wire.PREFIX.size] = wire.PREFIX.pack(wire.MAGIC, len(header), len(data))
    data[wire.PREFIX.size : wire.PREFIX.size + len(header)] = header
    with pytest.raises(BridgeError, match="cannot be read"):
        unpack(data)
