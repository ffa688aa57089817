"""PolicyFile: an exported policy, opened with suspicion and run by ONNX Runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError, PolicyFileError
from grpo_ros.export.metadata import (
    ACTION_OUTPUT,
    CONTRACT_HASH_KEY,
    CONTRACT_KEY,
    FILE_HASH_KEY,
    NOISE_INPUT,
    is_seal_intact,
)
from grpo_ros.policies.features import field_shape

MAX_BYTES = 64 * 2**20
CPU = "CPUExecutionProvider"
WARNING, FATAL = 2, 4
"""ONNX Runtime's log severities."""
TENSOR_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}

Array = npt.NDArray[Any]
EXPORT_AGAIN = "export the policy again"


class PolicyFile:
    """A verified policy: its contract, and inference on one thread.

    Attributes:
        path: where it was read from.
        contract: what it observes and commands.
        provider: the execution provider in use.
    """

    def __init__(self, path: Path, contract: Contract, session: Any) -> None:
        """Take a session whose inputs and outputs were checked; see `load_policy_file`."""
        self.path, self.contract, self._session = path, contract, session
        self.provider: str = session.get_providers()[0]
        self._shapes = input_shapes(contract)
        self._dtypes = {f.name: np.dtype(f.dtype) for f in contract.observation}

    def infer(self, obs: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Return the chunk (N, K, A) float32 in [-1, 1].

        Args:
            obs: field -> (N, *field_shape); `noise` (N, *noise_shape) where the contract has it.

        Raises:
            ContractError: an input is missing or has another shape.
        """
        feed: dict[str, Array] = {}
        num_rows: int | None = None
        for name, shape in self._shapes.items():
            if name not in obs:
                raise ContractError(
                    f"observation lacks '{name}'", expected=f"fields {list(self._shapes)}"
                )
            value = np.ascontiguousarray(obs[name], self._dtypes.get(name, np.float32))
            num_rows = value.shape[0] if num_rows is None and value.ndim else num_rows
            if value.shape != (num_rows, *shape):
                raise ContractError(
                    f"observation '{name}' has shape {value.shape}",
                    expected=f"{(num_rows, *shape)}",
                )
            feed[name] = value
        action: npt.NDArray[np.float32] = self._session.run([ACTION_OUTPUT], feed)[0]
        return action


def input_shapes(contract: Contract) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the graph's inputs, without the leading N."""
    shapes = {field.name: field_shape(field) for field in contract.observation}
    if contract.noise_shape:
        shapes[NOISE_INPUT] = contract.noise_shape
    return shapes


def load_policy_file(
    path: Path | str, providers: Sequence[str] = (CPU,), max_bytes: int = MAX_BYTES
) -> PolicyFile:
    """Open a policy file after checking everything it claims.

    Args:
        path: of the ONNX file.
        providers: ONNX Runtime's, by preference; the CPU is used where none of them works.
        max_bytes: larger files are not even parsed.

    Raises:
        PolicyFileError: absent, damaged, altered, too large, of another schema, referring to other
            files, or with inputs that do not fit its contract.
    """
    path = Path(path)
    data = _read(path, max_bytes)
    model = _parse(path, data)
    metadata = _metadata(path, model)
    if not is_seal_intact(data, metadata[FILE_HASH_KEY]):
        raise PolicyFileError(
            f"{path}: bytes do not match {FILE_HASH_KEY}",
            expected="an unaltered file",
            remedy=f"copy the file once more, or {EXPORT_AGAIN}",
        )
    contract = _contract(path, metadata)
    for name, location in _external_data(model):
        raise PolicyFileError(
            f"{path}: tensor '{name}' lies in another file, {location!r}",
            expected="all data inside",
            remedy=EXPORT_AGAIN,
        )
    session = _session(path, data, providers)
    _check_interface(path, session, contract)
    return PolicyFile(path, contract, session)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as problem:
        raise PolicyFileError(
            f"{path}: {problem.strerror or problem}", expected="a policy file (.onnx)"
        ) from problem
    if not data:
        raise PolicyFileError(f"{path}: empty", remedy=EXPORT_AGAIN)
    if len(data) > max_bytes:
        raise PolicyFileError(
            f"{path}: larger than {max_bytes} bytes",
            expected="a policy file",
            remedy="raise the limit if it is meant to be so large",
        )
    return data


def _parse(path: Path, data: bytes) -> Any:
    import onnx
    from google.protobuf.message import (  # type: ignore[import-untyped, unused-ignore]
        DecodeError,
    )

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError, UnicodeDecodeError) as problem:
        raise PolicyFileError(
            f"{path}: truncated, or not ONNX ({problem})", remedy=EXPORT_AGAIN
        ) from problem
    if not model.graph.node or not model.opset_import:
        raise PolicyFileError(f"{path}: no ONNX graph in it", remedy=EXPORT_AGAIN)
    return model


def _metadata(path: Path, model: Any) -> dict[str, str]:
    keys = [entry.key for entry in model.metadata_props]
    wanted = (CONTRACT_KEY, CONTRACT_HASH_KEY, FILE_HASH_KEY)
    missing = [key for key in wanted if key not in keys]
    if missing or len(set(keys)) != len(keys):
        raise PolicyFileError(
            f"{path}: metadata {'lacks ' + str(missing) if missing else 'repeats a key'}",
            expected=f"{list(wanted)}, once each",
            remedy="use a file that this package exported",
        )
    return {entry.key: entry.value for entry in model.metadata_props}


def _contract(path: Path, metadata: Mapping[str, str]) -> Contract:
    text = metadata[CONTRACT_KEY]
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != metadata[CONTRACT_HASH_KEY]:
        raise PolicyFileError(
            f"{path}: contract does not match {CONTRACT_HASH_KEY}", remedy=EXPORT_AGAIN
        )
    try:
        return Contract.from_json(text)
    except ContractError as problem:
        raise PolicyFileError(f"{path}: {problem}") from problem


def _external_data(model: Any) -> Iterator[tuple[str, str]]:
    """Yield name and location of every tensor whose data lie outside the file."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    def tensors(graph: Any) -> Iterator[Any]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            yield from attributes(node)

    def attributes(node: Any) -> Iterator[Any]:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
            for graph in (attribute.g, *attribute.graphs):
                yield from tensors(graph)

    for function in model.functions:
        for node in function.node:
            for tensor in attributes(node):
                if uses_external_data(tensor):
                    yield tensor.name, str(tensor.external_data)
    for tensor in tensors(model.graph):
        if uses_external_data(tensor):
            yield tensor.name, str(tensor.external_data)


def _session(path: Path, data: bytes, providers: Sequence[str]) -> Any:
    """Return a session on the first provider that works; the CPU if none does."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    available = set(onnxruntime.get_available_providers())
    wanted = [name for name in providers if name in available and name != CPU]
    if wanted:
        # A provider whose libraries are absent complains on stderr before it falls back.
        onnxruntime.set_default_logger_severity(FATAL)
    try:
        for start in range(len(wanted) + 1):
            try:
                return onnxruntime.InferenceSession(
                    data, options, providers=[*wanted[start:], CPU], enable_fallback=False
                )
            except Exception as problem:  # onnxruntime's own classes share no other base
                if start == len(wanted):
                    raise PolicyFileError(
                        f"{path}: ONNX Runtime refuses it: {problem}", remedy=EXPORT_AGAIN
                    ) from problem
        raise AssertionError("unreachable")
    finally:
        if wanted:
            onnxruntime.set_default_logger_severity(WARNING)


def _check_interface(path: Path, session: Any, contract: Contract) -> None:
    """Raise PolicyFileError where inputs or output are not those of the contract."""
    dtypes = {field.name: TENSOR_TYPES[field.dtype] for field in contract.observation}
    expected = {
        name: (shape, dtypes.get(name, TENSOR_TYPES["float32"]))
        for name, shape in input_shapes(contract).items()
    }
    found = {value.name: (tuple(value.shape[1:]), value.type) for value in session.get_inputs()}
    if found != expected:
        names = sorted(found.keys() | expected.keys())
        differing = [name for name in names if found.get(name) != expected.get(name)]
        raise PolicyFileError(
            f"{path}: inputs {[f'{name}: {found.get(name)}' for name in differing]}",
            expected=f"{[f'{name}: {expected.get(name)}' for name in differing]} by its contract",
            remedy=EXPORT_AGAIN,
        )
    action = ((contract.chunk_size, contract.action_size), TENSOR_TYPES["float32"])
    outputs = {value.name: (tuple(value.shape[1:]), value.type) for value in session.get_outputs()}
    if outputs != {ACTION_OUTPUT: action}:
        raise PolicyFileError(
            f"{path}: outputs {outputs}",
            expected=f"{ {ACTION_OUTPUT: action} } by its contract",
            remedy=EXPORT_AGAIN,
        )
