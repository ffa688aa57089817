"""What a policy's graph may ask of memory and time, checked before anything is built from it.

A few bytes of a model can stand for gigabytes: an empty node takes 2 bytes of a file and a
kilobyte of ONNX Runtime's memory, a tensor takes the size that its header declares, a loop takes
as long as it likes. So the parts are counted in the file's bytes, tensors have to bring the data
that they declare, and whatever repeats or hides part of a graph is refused: no policy of this
package, or traced by torch, holds any. What an operator asks for when it runs is bounded where it
runs; see `inference_session`.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from typing import Any

MAX_PARTS = 300_000
"""Fields of the serialised model, and elements of its packed lists. A small policy has some 500,
the head of a GR00T N1.7 with 32 layers, adapters and four steps 119 thousand."""

ALIGNMENT = 64
"""Bytes at whose multiples tensors begin in a file of weights."""
FLOAT_BYTES = 4

VARINT, FIXED_64, LENGTH, FIXED_32 = 0, 1, 2, 5
"""Protocol Buffers' wire types; groups, 3 and 4, are never written by ONNX."""


class ModelLimitError(ValueError):
    """A model asks for more than a policy may; the text names the part."""


def count_parts(data: bytes) -> int:
    """Return how many parts a serialised model has, without building any of them.

    Args:
        data: as in the file.

    Raises:
        ModelLimitError: more than MAX_PARTS, or no model.
    """
    import onnx

    view = memoryview(data)
    pending = [(view, onnx.ModelProto.DESCRIPTOR)]
    count = 0
    while pending:
        message, descriptor = pending.pop()
        for number, value in _fields(message):
            count += 1
            field = descriptor.fields_by_number.get(number)
            if field is None or not isinstance(value, memoryview):
                pass
            elif field.message_type is not None:
                pending.append((value, field.message_type))
            elif field.type not in (field.TYPE_STRING, field.TYPE_BYTES):
                is_fixed = field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE)
                count += 0 if is_fixed else len(value)
            if count > MAX_PARTS:
                raise ModelLimitError(f"more than {MAX_PARTS} parts")
    return count


def check_graph(model: Any, files: Mapping[str, int] | None = None) -> None:
    """Raise ModelLimitError where a model hides or multiplies what it asks for.

    Refused: data outside the file but in `files` (name -> bytes), which float32 tensors fill from
    end to end, each with a part of its own; tensors whose data are not of the size that they
    declare, sparse tensors, graphs within nodes (If, Loop, Scan), functions, training graphs, and
    operators of other domains than ONNX's own.
    """
    if model.functions or model.training_info:
        raise ModelLimitError("functions or training graphs in it")
    if model.graph.sparse_initializer:
        raise ModelLimitError("a sparse tensor")
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in files or {}}
    for tensor in model.graph.initializer:
        if _is_external(tensor) and spans:
            name, start, end = _span(tensor, spans)
            spans[name].append((start, end))
        else:
            _check_tensor(tensor)
    for name, found in spans.items():
        _check_filled(name, found, (files or {})[name])
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ModelLimitError(f"operator '{node.op_type}' of domain '{node.domain}'")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise ModelLimitError(f"a graph within operator '{node.op_type}'")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ModelLimitError(f"a sparse tensor in operator '{node.op_type}'")
            for tensor in (
                *([attribute.t] if attribute.HasField("t") else []),
                *attribute.tensors,
            ):
                _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    """Raise ModelLimitError unless the data lie inside and are of the declared size."""
    import onnx

    name = tensor.name or "without a name"
    if _is_external(tensor):
        place = next((e.value for e in tensor.external_data if e.key == "location"), "")
        raise ModelLimitError(f"tensor '{name}' lies in another file, {place!r}")
    if any(size < 0 for size in tensor.dims):
        raise ModelLimitError(f"tensor '{name}' declares shape {list(tensor.dims)}")
    try:
        item = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        listed = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
    except (KeyError, TypeError, AttributeError):
        raise ModelLimitError(f"tensor '{name}' has data type {tensor.data_type}") from None
    declared = math.prod(tensor.dims)
    found = len(tensor.raw_data) / item if tensor.HasField("raw_data") else len(listed)
    if found != declared:
        raise ModelLimitError(
            f"tensor '{name}' declares {declared} numbers, {list(tensor.dims)}, and has {found:g}"
        )


def external_files(model: Any) -> set[str]:
    """Return the names of the files that a model's initializers refer to, whatever they are."""
    return {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _is_external(tensor: Any) -> bool:
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data)


def _span(tensor: Any, files: Container[str]) -> tuple[str, int, int]:
    """Return file, start and end of a tensor's data; raise ModelLimitError unless they fit it."""
    import onnx

    entries = {entry.key: entry.value for entry in tensor.external_data}
    place = entries.get("location", "")
    if place not in files:
        raise ModelLimitError(
            f"tensor '{tensor.name}' lies in another file, {place!r}, that is none of the policy's"
        )
    known = (
        sorted(entries)
        == ["length", "location", "offset"]
        == sorted(entry.key for entry in tensor.external_data)
    )
    numbers = [entries.get(key, "") for key in ("offset", "length")]
    if not known or not all(n.isascii() and n.isdigit() and len(n) < 16 for n in numbers):
        raise ModelLimitError(f"tensor '{tensor.name}' lies in {place!r} at {entries}")
    start, length = map(int, numbers)
    is_plain = tensor.data_type == onnx.TensorProto.FLOAT and not tensor.HasField("raw_data")
    if not is_plain or any(size < 0 for size in tensor.dims):
        raise ModelLimitError(f"tensor '{tensor.name}' in {place!r} is no plain float32 tensor")
    if length != FLOAT_BYTES * math.prod(tensor.dims):
        raise ModelLimitError(
            f"tensor '{tensor.name}' declares {list(tensor.dims)} and has {length} bytes"
        )
    return place, start, start + length


def _check_filled(name: str, spans: list[tuple[int, int]], num_bytes: int) -> None:
    """Raise ModelLimitError unless tensors fill a file, each apart, but for alignment."""
    at = 0
    for start, end in sorted(spans):
        if not at <= start < at + ALIGNMENT:
            raise ModelLimitError(f"tensors in {name!r} overlap or leave a gap at byte {at}")
        at = end
    if at != num_bytes:
        raise ModelLimitError(f"tensors fill {at} of the {num_bytes} bytes of {name!r}")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield number and, where it has a length, content of each field of a message."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == LENGTH:
            length, at = _varint(message, at)
            value, at = message[at : at + length], at + length
        elif wire_type == VARINT:
            value, (_, at) = None, _varint(message, at)
        elif wire_type in (FIXED_64, FIXED_32):
            value, at = None, at + (8 if wire_type == FIXED_64 else 4)
        else:
            raise ModelLimitError("truncated, or not ONNX")
        if number == 0 or at > end:
            raise ModelLimitError("truncated, or not ONNX")
        yield number, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where the next field begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte, at = message[at], at + 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ModelLimitError("truncated, or not ONNX")
