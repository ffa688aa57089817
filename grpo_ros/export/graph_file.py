"""A graph as it lies in a file: read, counted, parsed and checked, in that order."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_ros.errors import PolicyFileError
from grpo_ros.export.model_limits import ModelLimitError, check_graph, count_parts

MAX_BYTES = 64 * 2**20
"""Of a graph, with the weights that it holds."""
EXPORT_AGAIN = "export the policy again"
ONLY_EXPORTED = "use a file that this package exported"


def read_graph(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        PolicyFileError: absent, no file, empty, or larger than `max_bytes`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PolicyFileError(f"{path}: not a file", expected="a policy file (.onnx)")
        num_bytes, data = status.st_size, b""
        if num_bytes <= max_bytes:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
            num_bytes = len(data)
    except (OSError, ValueError) as problem:
        raise PolicyFileError(
            f"{path}: {getattr(problem, 'strerror', '') or problem}",
            expected="a policy file (.onnx)",
        ) from problem
    if num_bytes > max_bytes:
        raise PolicyFileError(
            f"{path}: {num_bytes} bytes, larger than {max_bytes} bytes",
            expected="a policy file",
            remedy="raise the limit if it is meant to be so large",
        )
    if not data:
        raise PolicyFileError(f"{path}: empty", remedy=EXPORT_AGAIN)
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


def parse_graph(path: Path, data: bytes) -> Any:
    """Return the onnx.ModelProto of a file's bytes, once its parts are counted.

    Raises:
        PolicyFileError: too many parts, or no ONNX graph; the text names `path`.
    """
    try:
        count_parts(data)
    except ModelLimitError as problem:
        raise _beyond(path, problem) from problem
    return _parse(path, data)


def check_graph_of(path: Path, model: Any, files: Mapping[str, int]) -> None:
    """Raise PolicyFileError where `check_graph` finds that a model asks for more than it may.

    Args:
        path: for the text. model: as from `parse_graph`. files: name -> bytes of its weights.
    """
    try:
        check_graph(model, files)
    except ModelLimitError as problem:
        raise _beyond(path, problem) from problem


def _beyond(path: Path, problem: ModelLimitError) -> PolicyFileError:
    return PolicyFileError(
        f"{path}: {problem}",
        expected="a plain graph, with its data inside or in files that the policy lists",
        remedy=f"{ONLY_EXPORTED}, or {EXPORT_AGAIN}",
    )
