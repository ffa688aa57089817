"""PolicyFile: an exported policy, opened with suspicion and run by ONNX Runtime.

A policy may come from anybody, and its hash only tells that it arrived as it was written. So a
file is judged from the outside in, each step bounded by the one before: kind and size of the file,
number of parts, hash, contract, tensors, then one inference on zeros. Memory stays within 1.5 GB
of what the process had: MAX_BYTES some times over, parts of a kilobyte each, and the arena of
`inference_session`. A policy in several files (`companions`) needs its weights besides: all of
them, and those of one graph once more while it is opened.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError, PolicyFileError
from grpo_ros.export.companion_graphs import open_in_parts
from grpo_ros.export.companions import Companion, from_json
from grpo_ros.export.graph_file import (
    EXPORT_AGAIN,
    MAX_BYTES,
    ONLY_EXPORTED,
    check_graph_of,
    parse_graph,
    read_graph,
)
from grpo_ros.export.inference_session import CPU, open_session, provider_names, within
from grpo_ros.export.metadata import (
    ACTION_OUTPUT,
    COMPANIONS_KEY,
    CONTRACT_HASH_KEY,
    CONTRACT_KEY,
    FILE_HASH_KEY,
    NOISE_INPUT,
    is_seal_intact,
)
from grpo_ros.policies.features import field_shape

MAX_CONTRACT_BYTES = 4 * 2**20
MAX_NUMBERS = 2**24
"""Of all inputs, or of the output, for one robot."""
MAX_WEIGHT_BYTES = 16 * 2**30
"""Of all files beside a policy file."""
DEADLINE_S = 30.0
"""For loading and one inference; TensorRT may want more to build its engine."""
DEADLINE_PER_GB_S = 30.0
DEADLINE_PER_GRAPH_MB_S = 60.0
"""More for what lies beside a policy file: reading weights, and making sessions of large graphs,
which takes ONNX Runtime a minute of a core for the head of a GR00T N1.7."""
TENSOR_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}

Array = npt.NDArray[Any]


class PolicyFile:
    """A verified policy: its contract, and inference on one thread.

    Attributes:
        path: where it was read from.
        contract: what it observes and commands.
        provider: the execution provider in use.
        input_names: in the graph's order.
        companions: the files that belong to it; none of a policy in one file.
    """

    def __init__(
        self,
        path: Path,
        contract: Contract,
        session: Any,
        companions: tuple[Companion, ...] = (),
    ) -> None:
        """Take a session whose inputs and outputs were checked; see `load_policy_file`."""
        self.path, self.contract, self._session = path, contract, session
        self.companions = companions
        self.provider: str = session.get_providers()[0]
        self.input_names = tuple(value.name for value in session.get_inputs())
        self._shapes = input_shapes(contract)
        self._dtypes = {f.name: np.dtype(f.dtype) for f in contract.observation}

    def infer(self, obs: Mapping[str, Array]) -> npt.NDArray[np.float32]:
        """Return the chunk (N, K, A) float32 in [-1, 1].

        Args:
            obs: field -> (N, *field_shape); `noise` (N, *noise_shape) where the contract has it.

        Raises:
            ContractError: an input is missing or has another shape.
            PolicyFileError: the graph fails on these inputs, or wants more memory than it may.
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
        try:
            action: npt.NDArray[np.float32] = self._session.run([ACTION_OUTPUT], feed)[0]
        except Exception as problem:  # onnxruntime's own classes share no other base
            raise _refused(self.path, problem) from problem
        return action

    def zeros(self) -> dict[str, Array]:
        """Return an observation of one robot, noise included, that is zero throughout."""
        return {
            name: np.zeros((1, *shape), self._dtypes.get(name, np.float32))
            for name, shape in self._shapes.items()
        }


def input_shapes(contract: Contract) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the graph's inputs, without the leading N."""
    shapes = {field.name: field_shape(field) for field in contract.observation}
    if contract.noise_shape:
        shapes[NOISE_INPUT] = contract.noise_shape
    return shapes


def load_policy_file(
    path: Path | str,
    providers: Sequence[str] = (CPU,),
    max_bytes: int = MAX_BYTES,
    deadline_s: float = DEADLINE_S,
    max_weight_bytes: int = MAX_WEIGHT_BYTES,
) -> PolicyFile:
    """Open a policy file after checking everything that it and its companions claim.

    Args:
        path: of the ONNX file.
        providers: ONNX Runtime's, by preference, in its own words or short: cuda, tensorrt, cpu.
            The CPU is used where none of them works; see `PolicyFile.provider`.
        max_bytes: of a graph; larger files are not even read.
        deadline_s: for loading it and one inference; more where there are companions.
        max_weight_bytes: of all companions together.

    Raises:
        PolicyFileError: absent, damaged, altered, too large, of another schema, referring to files
            that it does not vouch for, with inputs that do not fit its contract, or in want of
            more memory or time than a policy may have.
        ConfigurationError: ONNX Runtime knows no such provider.
    """
    path, providers = Path(path), provider_names(providers)
    data = read_graph(path, max_bytes)
    model = parse_graph(path, data)
    metadata = _metadata(path, model, data)
    contract = _contract(path, metadata)
    companions: tuple[Companion, ...] = ()
    if COMPANIONS_KEY in metadata:
        companions = from_json(path, metadata[COMPANIONS_KEY])
        opened = open_in_parts(path, model, data, companions, max_bytes, max_weight_bytes)
    else:
        opened = _one(path, model, data)
    del model
    num_bytes = sum(companion.num_bytes for companion in companions)
    if companions:
        num_graph_bytes = len(data) + sum(c.num_bytes for c in companions if c.is_graph)
        deadline_s += DEADLINE_PER_GB_S * num_bytes / 1e9
        deadline_s += DEADLINE_PER_GRAPH_MB_S * num_graph_bytes / 1e6

    def work() -> PolicyFile:
        try:
            session = opened(providers)
        except PolicyFileError:
            raise
        except Exception as problem:  # onnxruntime's own classes share no other base
            raise _refused(path, problem) from problem
        _check_interface(path, session, contract)
        policy = PolicyFile(path, contract, session, companions)
        policy.infer(policy.zeros())
        return policy

    try:
        return within(deadline_s, work)
    except TimeoutError as problem:
        raise PolicyFileError(
            f"{path}: loading it and one inference {problem}",
            remedy="use a smaller policy or a longer deadline; restart this process, a part of "
            "which is still busy",
        ) from problem


def _one(path: Path, model: Any, data: bytes) -> Callable[[Sequence[str]], Any]:
    """Return what opens a policy in one file, which was checked."""
    check_graph_of(path, model, {})
    return lambda providers: open_session(data, providers)


def _refused(path: Path, problem: Exception) -> PolicyFileError:
    reason = " ".join(str(problem).split())
    return PolicyFileError(f"{path}: ONNX Runtime refuses it: {reason}", remedy=EXPORT_AGAIN)


def read_contract(path: Path | str, max_bytes: int = MAX_BYTES) -> Contract:
    """Return the contract of a policy file, without running anything of it.

    Raises:
        PolicyFileError: absent, damaged, altered, too large, or without a sound contract.
    """
    path = Path(path)
    data = read_graph(path, max_bytes)
    return _contract(path, _metadata(path, parse_graph(path, data), data))


def _metadata(path: Path, model: Any, data: bytes) -> dict[str, str]:
    """Return what a file says about itself, once its bytes are those that were sealed."""
    keys = [entry.key for entry in model.metadata_props]
    wanted = (CONTRACT_KEY, CONTRACT_HASH_KEY, FILE_HASH_KEY)
    missing = [key for key in wanted if key not in keys]
    if missing or len(set(keys)) != len(keys):
        raise PolicyFileError(
            f"{path}: metadata {'lacks ' + str(missing) if missing else 'repeats a key'}",
            expected=f"{list(wanted)}, once each",
            remedy=ONLY_EXPORTED,
        )
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if not is_seal_intact(data, metadata[FILE_HASH_KEY]):
        raise PolicyFileError(
            f"{path}: bytes do not match {FILE_HASH_KEY}",
            expected="an unaltered file",
            remedy=f"copy the file once more, or {EXPORT_AGAIN}",
        )
    return metadata


def _contract(path: Path, metadata: Mapping[str, str]) -> Contract:
    text = metadata[CONTRACT_KEY]
    if len(text) > MAX_CONTRACT_BYTES:
        raise PolicyFileError(
            f"{path}: contract of {len(text)} characters",
            expected=f"at most {MAX_CONTRACT_BYTES}",
            remedy=ONLY_EXPORTED,
        )
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != metadata[CONTRACT_HASH_KEY]:
        raise PolicyFileError(
            f"{path}: contract does not match {CONTRACT_HASH_KEY}", remedy=EXPORT_AGAIN
        )
    try:
        contract = Contract.from_json(text)
    except ContractError as problem:
        raise PolicyFileError(f"{path}: {problem}") from problem
    shapes = input_shapes(contract)
    num_inputs = sum(math.prod(shape) for shape in shapes.values())
    num_outputs = contract.chunk_size * contract.action_size
    is_shape = all(size > 0 for shape in shapes.values() for size in shape)
    if not is_shape or max(num_inputs, num_outputs) > MAX_NUMBERS:
        raise PolicyFileError(
            f"{path}: contract with inputs {shapes} and {num_outputs} outputs",
            expected=f"at most {MAX_NUMBERS} numbers",
            remedy=EXPORT_AGAIN,
        )
    return contract


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
