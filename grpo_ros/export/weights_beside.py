"""Graphs whose weights lie in a file beside them, written without a second copy of the weights.

The computation is traced with zeros that take no memory in place of the weights, as inputs of the
graph; torch folds every other constant. Then each weight becomes a tensor of the graph, and its
numbers go from the module to the file, one tensor at a time: transposed where the graph only
transposes it, and reduced to the rows that a constant index picks, as of an embedding for one
instruction.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from grpo_ros.export.model_limits import ALIGNMENT, FLOAT_BYTES

INLINE_BYTES = 1024
"""Weights of so many bytes or fewer stay in the graph."""
PREFIX = "weight:"
"""Before the name of a weight; a field of a contract may be called like a weight."""


def trace(
    module: nn.Module,
    compute: Callable[..., Tensor],
    inputs: Mapping[str, Tensor],
    output: str,
    opset: int,
) -> Any:
    """Return an onnx.ModelProto of a computation, the module's weights among its inputs.

    Args:
        module: float32, on the CPU; as before afterwards.
        compute: of `inputs`, by position, by means of the module.
        inputs: name -> an example (N, ...); N is free in the graph.
        output: name of what comes out.
        opset: of ONNX.
    """
    import onnx

    names = {id(p): PREFIX + name for name, p in module.named_parameters()}
    zeros = [torch.zeros(()).expand(p.shape) for p in module.parameters()]
    buffer = io.BytesIO()
    traced = _Traced(module, compute, list(names), len(inputs))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as where one graph is exported
        torch.onnx.export(
            traced.eval(),
            (*inputs.values(), *zeros),
            buffer,  # type: ignore[arg-type, unused-ignore]
            input_names=[*inputs, *names.values()],
            output_names=[output],
            dynamic_axes={name: {0: "N"} for name in (*inputs, output)},
            opset_version=opset,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    merge_equal_nodes(model.graph)
    return model


def merge_equal_nodes(graph: Any) -> None:
    """Compute once what is computed twice, and leave out names and remarks.

    Steps of denoising repeat constants and shapes, and what they attend to. No operator of a
    traced policy draws anything, so what goes in decides what comes out.
    """
    renamed: dict[str, str] = {}
    first: dict[tuple[Any, ...], Any] = {}
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        node.name, node.doc_string = "", ""
        node.input[:] = [renamed.get(name, name) for name in node.input]
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        key = (node.op_type, *node.input, len(node.output), *attributes)
        same = first.setdefault(key, node)
        if same is node or outputs & set(node.output):
            kept.append(node)
        else:
            renamed.update(zip(node.output, same.output, strict=True))
    del graph.node[:]
    graph.node.extend(kept)


class _Traced(nn.Module):
    """A computation whose weights are inputs; the module is no part of it, so torch adds none."""

    def __init__(
        self, module: nn.Module, compute: Callable[..., Tensor], ids: Sequence[int], num: int
    ) -> None:
        super().__init__()
        self._hidden = (module, compute, ids, num)

    def forward(self, *values: Tensor) -> Tensor:
        module, compute, ids, num = self._hidden
        with _weights_replaced(module, dict(zip(ids, values[num:], strict=True))):
            return compute(*values[:num])


@contextlib.contextmanager
def _weights_replaced(module: nn.Module, values: Mapping[int, Tensor]) -> Iterator[None]:
    """Let every use of a parameter, by its id, see another tensor."""
    before = []
    try:
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    before.append((part._parameters, name, parameter))
                    part._parameters[name] = values[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for owner, name, parameter in before:
            owner[name] = parameter


class DataFile:
    """A file of weights in the making.

    Attributes:
        num_bytes: so far. sha256: of them, in hexadecimal digits.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._tensors: list[Any] = []
        self.num_bytes = 0

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._digest.hexdigest()

    def add(self, name: str, value: Tensor) -> Any:
        """Return an onnx.TensorProto of a tensor whose numbers are appended, or few and inside."""
        import onnx

        numbers = (
            value.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4", copy=False)
        )
        made = onnx.TensorProto(
            name=name, data_type=onnx.TensorProto.FLOAT, dims=list(numbers.shape)
        )
        if numbers.nbytes <= INLINE_BYTES:
            made.raw_data = numbers.tobytes()
            return made
        self._write(bytes(-self.num_bytes % ALIGNMENT))
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value="")
        made.external_data.add(key="offset", value=str(self.num_bytes))
        made.external_data.add(key="length", value=str(FLOAT_BYTES * numbers.size))
        self._write(numbers.reshape(-1).view(np.uint8).data)
        return made

    def _write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.num_bytes += len(data)


def set_location(model: Any, name: str) -> None:
    """Name the file in which all external tensors of a model lie."""
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name


def attach_weights(model: Any, module: nn.Module, file: DataFile) -> None:
    """Make tensors of the inputs that are weights, as `trace` left them; write their numbers."""
    graph = model.graph
    weights = {PREFIX + name: p for name, p in module.named_parameters()}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    constants = _constants(graph)
    renamed: dict[str, str] = {}
    made: dict[str, Any] = {}
    for name in [value.name for value in graph.input if value.name in weights]:
        for user in users.get(name, []):
            form = _form(user, name, constants)
            key = name + form.suffix
            if key not in made:
                made[key] = file.add(key, form.of(weights[name]))
            if form.suffix:
                renamed[user.output[0]] = key
    kept = [node for node in graph.node if node.output[0] not in renamed]
    for node in kept:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    inputs = [value for value in graph.input if value.name not in weights]
    del graph.node[:], graph.input[:]
    graph.node.extend(kept)
    graph.input.extend(inputs)
    graph.initializer.extend(made.values())


@dataclasses.dataclass(frozen=True)
class _Form:
    """What a node makes of a weight before anything else: `of` it, and a name for that."""

    suffix: str
    of: Callable[[Tensor], Tensor]


def _form(node: Any, name: str, constants: Mapping[str, Any]) -> _Form:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Transpose" and "perm" in attributes:
        order = tuple(attributes["perm"].ints)
        return _Form("^" + "".join(map(str, order)), lambda weight: weight.permute(order))
    is_rows = node.op_type == "Gather" and node.input[0] == name and node.input[1] in constants
    if is_rows and not ("axis" in attributes and attributes["axis"].i):
        index = torch.from_numpy(np.array(constants[node.input[1]], np.int64))
        digest = hashlib.sha256(index.numpy().tobytes()).hexdigest()[:8]
        suffix = f"[{'x'.join(map(str, index.shape))}:{digest}]"
        return _Form(suffix, lambda weight: weight[index])
    return _Form("", lambda weight: weight)


def _constants(graph: Any) -> dict[str, Any]:
    """Return name -> array of what is constant and integer in a graph."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    arrays = {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "i"}
