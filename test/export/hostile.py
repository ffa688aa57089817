"""Policy files made to hurt: each builder alters a sound file, and seals it again where it can."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from grpo_ros.export.metadata import FILE_HASH_BLANK, sealed

HUGE = 2_700_000_000
"""float32 numbers in 10 GB."""
GRAPH, NODE, INITIALIZER, INPUT, METADATA = 7, 1, 5, 11, 14
"""Field numbers of ModelProto and GraphProto."""


def get_metadata(model, key):
    return next(entry.value for entry in model.metadata_props if entry.key == key)


def set_metadata(model, key, value):
    for entry in model.metadata_props:
        if entry.key == key:
            entry.value = value


def write_sealed(model, path):
    """What somebody does who knows the format: alter the model and seal it again."""
    set_metadata(model, "file_sha256", FILE_HASH_BLANK)
    path.write_bytes(sealed(model.SerializeToString()))


def write_contract(model, data, path):
    text = data if isinstance(data, str) else json.dumps(data, sort_keys=True)
    set_metadata(model, "metadata", text)
    set_metadata(model, "contract_sha256", hashlib.sha256(text.encode()).hexdigest())
    write_sealed(model, path)


# ---------------------------------------------------------------- operators that ask for much


def operator(op_type: str, *values, **attributes) -> Callable[[onnx.ModelProto], None]:
    """Return what adds the sum of an operator's output to the action.

    Args:
        values: constants, or names of the graph's own inputs.
    """

    def alter(model):
        graph, names = model.graph, []
        for index, value in enumerate(values):
            names.append(value if isinstance(value, str) else f"value{index}")
            if not isinstance(value, str):
                graph.initializer.append(numpy_helper.from_array(value, names[-1]))
        graph.node.append(helper.make_node(op_type, names, ["huge"], **attributes))
        add_to_action(graph, "huge")

    return alter


def add_to_action(graph, name):
    for node in graph.node:
        node.output[:] = ["decided" if output == "action" else output for output in node.output]
    graph.node.append(helper.make_node("ReduceSum", [name], ["sum"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["decided", "sum"], ["action"]))


def many_folded(model):
    """Twenty constants of 400 MB each, which a constant folder would keep."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([10**8]), "size"))
    for index in range(20):
        graph.node.append(helper.make_node("ConstantOfShape", ["size"], [f"zeros{index}"]))
        graph.node.append(helper.make_node("Exp", [f"zeros{index}"], [f"ones{index}"]))
    graph.node.append(helper.make_node("Sum", [f"ones{index}" for index in range(20)], ["huge"]))
    add_to_action(graph, "huge")


def size_from_input(model):
    """A shape that is computed from the observation: 0 * x + HUGE."""
    graph = model.graph
    for name, value in (("zero", np.float32(0)), ("many", np.float32(HUGE))):
        graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
    graph.initializer.append(numpy_helper.from_array(np.array([0]), "first"))
    make = helper.make_node
    graph.node.extend(
        [
            make("Reshape", ["tip", "flat"], ["row"]),
            make("Gather", ["row", "first"], ["number"]),
            make("Mul", ["number", "zero"], ["nothing"]),
            make("Add", ["nothing", "many"], ["size"]),
            make("Cast", ["size"], ["shape"], to=onnx.TensorProto.INT64),
            make("ConstantOfShape", ["shape"], ["huge"]),
        ]
    )
    add_to_action(graph, "huge")


def slow(model):
    """Products of large matrices, within the memory allowed: a minute on one core."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([8000, 8000]), "size"))
    graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["square"]))
    graph.node.append(helper.make_node("MatMul", ["square", "square"], ["huge"]))
    add_to_action(graph, "huge")


# ---------------------------------------------------------------- tensors


def tensor(dims, **fields):
    made = onnx.TensorProto(data_type=onnx.TensorProto.FLOAT, dims=dims, name="claim")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def initializer(dims, **fields):
    return lambda model: model.graph.initializer.append(tensor(dims, **fields))


def sparse(dims):
    value = numpy_helper.from_array(np.ones(1, np.float32), "claim")
    index = numpy_helper.from_array(np.zeros(1, np.int64), "claim_index")
    return onnx.SparseTensorProto(values=value, indices=index, dims=dims)


def constant(**value):
    return lambda model: model.graph.node.append(helper.make_node("Constant", [], ["c"], **value))


def external(location, where="initializer"):
    def alter(model):
        claim = tensor([4])
        claim.data_location = onnx.TensorProto.EXTERNAL
        claim.external_data.add(key="location", value=location)
        if where == "initializer":
            model.graph.initializer.append(claim)
        else:
            constant(value=claim)(model)

    return alter


# ---------------------------------------------------------------- graphs in graphs


def branch(inner):
    """Return an If whose branches are both `inner`."""
    output = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([inner], "branch", [], [output])
    return helper.make_node("If", ["condition"], ["out"], then_branch=graph, else_branch=graph)


def nested(depth):
    def alter(model):
        node = helper.make_node("Constant", [], ["out"], value_float=1.0)
        for _ in range(depth):
            node = branch(node)
        model.graph.node.append(node)

    return alter


def loop(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["trips", ""], [], body=body))


def function(model):
    node = helper.make_node("Identity", ["x"], ["y"])
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "F", ["x"], ["y"], [node], imports))


def domain(model):
    model.graph.node.append(helper.make_node("Trilu", ["x"], ["y"], domain="com.microsoft"))


# ---------------------------------------------------------------- bytes, contracts, files


def field(number, content):
    """Return a field with a length, as Protocol Buffers write it."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def repeated(prefix, number, content=b"", count=30 * 2**20):
    """Return the bytes of a model with `count` times the same small field, 60 MB."""
    inner = field(number, content) * count
    for outer in reversed(prefix):
        inner = field(outer, inner)
    return b"\x08\x08" + field(8, b"\x10\x11") + inner


def deep(levels=2_000):
    """Return the bytes of graphs within attributes of nodes, thousands of levels down."""
    inner = field(NODE, b"")
    for _ in range(levels):
        inner = field(NODE, field(5, field(6, inner)))
    return b"\x08\x08" + field(8, b"\x10\x11") + field(GRAPH, inner)


def with_contract(change):
    def build(sound, path):
        model = onnx.load(sound)
        data = json.loads(get_metadata(model, "metadata"))
        write_contract(model, change(model, data), path)

    return build


def huge_field(model, data):
    data["observation"][0]["shape"] = [HUGE]
    for value in model.graph.input:
        if value.name == data["observation"][0]["name"]:
            value.type.tensor_type.shape.dim[1].dim_value = HUGE
    return data


def huge_chunk(model, data):
    data["chunk_size"] = HUGE
    return data


def with_number(key, text):
    """Build a file whose contract has these characters for a number."""

    def change(model, data):
        data[key] = "number"
        return json.dumps(data, sort_keys=True).replace('"number"', text)

    return with_contract(change)


def altered(alter):
    def build(sound, path):
        model = onnx.load(sound)
        alter(model)
        write_sealed(model, path)

    return build


def as_bytes(make):
    return lambda sound, path: path.write_bytes(make())


def zeros(num_bytes):
    """Build a sparse file: nothing on the disk, zeros for the reader."""

    def build(sound, path):
        with path.open("wb") as file:
            file.truncate(num_bytes)

    return build


def link(sound, path):
    """Build a file whose data lie behind a link that leads out of its folder."""
    (path.parent / "weights.bin").unlink(missing_ok=True)
    (path.parent / "weights.bin").symlink_to("/etc/passwd")
    altered(external("weights.bin"))(sound, path)


OUT_OF_MEMORY = "ONNX Runtime refuses it: .*(memory|bytes)"
FILES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "declared_without_data": (altered(initializer([HUGE])), "declares 2700000000 numbers"),
    "declared_with_little_data": (
        altered(initializer([HUGE], raw_data=b"\0" * 4)),
        "declares 2700000000 numbers.*has 1",
    ),
    "declared_beyond_64_bits": (altered(initializer([2**62, 2**62])), "declares"),
    "declared_negative": (altered(initializer([-1, -4], raw_data=b"\0" * 16)), "declares shape"),
    "declared_of_unknown_type": (altered(initializer([1], data_type=99)), "data type 99"),
    "declared_in_a_node": (
        altered(
            lambda m: m.graph.node.append(
                helper.make_node("Constant", [], ["c"], value=tensor([HUGE]))
            )
        ),
        "declares",
    ),
    "sparse_tensor": (
        altered(lambda m: m.graph.sparse_initializer.append(sparse([HUGE]))),
        "sparse tensor",
    ),
    "sparse_tensor_in_a_node": (
        altered(
            lambda m: m.graph.node.append(
                helper.make_node("Constant", [], ["c"], sparse_value=sparse([HUGE]))
            )
        ),
        "sparse tensor",
    ),
    "constant_of_shape": (altered(operator("ConstantOfShape", np.array([HUGE]))), OUT_OF_MEMORY),
    "expand": (
        altered(operator("Expand", np.ones(1, np.float32), np.array([HUGE]))),
        OUT_OF_MEMORY,
    ),
    "tile": (altered(operator("Tile", np.ones(1, np.float32), np.array([10**9]))), OUT_OF_MEMORY),
    "tile_of_an_input": (altered(operator("Tile", "tip", np.array([HUGE, 1]))), OUT_OF_MEMORY),
    "range": (
        altered(operator("Range", *(np.array(v, np.float32) for v in (0, HUGE, 1)))),
        OUT_OF_MEMORY,
    ),
    "pad": (
        altered(operator("Pad", np.ones(1, np.float32), np.array([0, HUGE]))),
        OUT_OF_MEMORY,
    ),
    "one_hot": (
        altered(
            operator("OneHot", np.array([0]), np.array(HUGE), np.array([0.0, 1.0], np.float32))
        ),
        OUT_OF_MEMORY,
    ),
    "size_from_an_input": (altered(size_from_input), OUT_OF_MEMORY),
    "many_constants": (altered(many_folded), OUT_OF_MEMORY),
    "loop": (altered(loop), "graph within operator 'Loop'"),
    "nested_branches": (altered(nested(8)), "graph within operator 'If'"),
    "nested_thousands": (as_bytes(deep), "parts|truncated"),
    "function": (altered(function), "functions"),
    "foreign_operator": (altered(domain), "'com.microsoft'"),
    "millions_of_nodes": (as_bytes(lambda: repeated([GRAPH], NODE)), "more than 300000 parts"),
    "millions_of_inputs": (as_bytes(lambda: repeated([GRAPH], INPUT)), "more than 300000 parts"),
    "millions_of_attributes": (as_bytes(lambda: repeated([GRAPH, NODE], 5)), "more than 300000"),
    "millions_of_metadata": (as_bytes(lambda: repeated([], METADATA)), "more than 300000 parts"),
    "millions_of_dimensions": (
        as_bytes(lambda: repeated([GRAPH, INITIALIZER], 1, b"\1" * 2**20, count=60)),
        "more than 300000 parts",
    ),
    "contract_of_lists": (
        with_contract(lambda model, data: "[" + "[]," * (20 * 2**20) + "[]]"),
        "contract of 62914564 characters",
    ),
    "contract_of_brackets": (with_contract(lambda model, data: "[" * 10**6), "not JSON"),
    "contract_of_a_huge_field": (with_contract(huge_field), "at most 16777216 numbers"),
    "contract_of_a_huge_chunk": (with_contract(huge_chunk), "at most 16777216 numbers"),
    "contract_of_an_infinite_rate": (
        with_number("control_rate_hz", "Infinity"),
        "not JSON: Infinity",
    ),
    "contract_of_a_rate_too_large_to_be_read": (
        with_number("control_rate_hz", "1e999"),
        "not JSON: 1e999 is not a finite number",
    ),
    "contract_of_a_rate_that_is_no_number": (with_number("control_rate_hz", "NaN"), "not JSON"),
    "contract_of_a_huge_rate": (
        with_number("control_rate_hz", "1" * 401),
        "'contract.control_rate_hz' is larger than a float can be",
    ),
    "contract_of_a_rate_that_no_robot_has": (
        with_number("control_rate_hz", "1e300"),
        r"control_rate_hz' = 1e\+300; expected a value in \[0.1, 10000.0\] Hz",
    ),
    "contract_of_5000_digits": (with_number("horizon", "1" * 5000), "not JSON: .*digits"),
    "contract_of_a_horizon_without_end": (with_number("horizon", "1" + "0" * 30), "horizon' = 10"),
    "file_of_10_gb": (zeros(10**10), "10000000000 bytes, larger than"),
    "file_of_zeros": (zeros(60 * 2**20), "truncated, or not ONNX"),
    "pipe": (lambda sound, path: os.mkfifo(path), "not a file"),
    "folder": (lambda sound, path: path.mkdir(), "not a file"),
    "data_above": (altered(external("../../secret")), "another file, '../../secret'"),
    "data_at_an_absolute_path": (altered(external("/etc/passwd")), "another file, '/etc/passwd'"),
    "data_behind_a_link": (link, "another file, 'weights.bin'"),
    "data_of_a_node": (altered(external("../secret", "node")), "another file, '../secret'"),
    "data_at_an_address": (
        altered(external("*/_ORT_MEM_ADDR_/*")),
        "another file, '\\*/_ORT_MEM_ADDR_/\\*'",
    ),
}
"""Name -> what builds it from a sound file, and what the refusal says."""
