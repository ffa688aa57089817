"""ONNX Runtime under a bound on memory and on time, on the provider that is asked for.

Whatever an operator of a policy asks for, with any input, it gets from one arena for all policies
of a process, which gives MAX_MEMORY and no more: then the operator fails, and the process goes on.
Constants are not folded at load: the results would lie outside the arena, and torch has folded
them before. ONNX Runtime cannot be stopped within an operator, so what takes too long is left
behind in its thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.errors import ConfigurationError, nearest

MAX_MEMORY = 2**30
"""Bytes that all policies of a process have together, and a policy on a GPU there; weights that
lie beside a policy file come on top."""
SUFFIX = "ExecutionProvider"
CPU, CUDA = f"CPU{SUFFIX}", f"CUDA{SUFFIX}"
WARNING, FATAL = 2, 4
"""ONNX Runtime's log severities."""

_registering = threading.Lock()


def provider_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return ONNX Runtime's names of execution providers, by preference.

    Args:
        names: as ONNX Runtime has them, or short in any case: cuda, tensorrt, cpu.

    Raises:
        ConfigurationError: ONNX Runtime knows no such provider. One that it knows and this machine
            lacks is none: the CPU stands in for it.
    """
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    known = {_short(name): name for name in onnxruntime.get_all_providers()}
    found = []
    for name in names:
        if _short(name) not in known:
            available = [_short(each) for each in onnxruntime.get_available_providers()]
            raise ConfigurationError(
                f"execution provider '{name}'",
                expected=f"some of {', '.join(available)}, which this ONNX Runtime has",
                remedy=nearest(_short(name), available),
            )
        found.append(known[_short(name)])
    return tuple(found)


def open_session(
    data: bytes,
    providers: Sequence[str],
    weights: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> Any:
    """Return a session on the first provider that works, on the CPU if none does.

    Args:
        data: a serialised model.
        providers: as from `provider_names`.
        weights: name of a file that the model refers to -> its bytes. ONNX Runtime copies them,
            outside the arena, and opens no file.
    """
    import onnxruntime

    _register_arena()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.use_env_allocators", "1")
    weights = weights or {}
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(weights),
            [value.data for value in weights.values()],
            list(map(len, weights.values())),
        )
    available = set(onnxruntime.get_available_providers())
    wanted = [name for name in providers if name in available and name != CPU]
    if wanted:
        # A provider whose libraries are absent complains on stderr before it falls back.
        onnxruntime.set_default_logger_severity(FATAL)
    limits = {CUDA: {"gpu_mem_limit": str(MAX_MEMORY + sum(map(len, weights.values())))}}
    try:
        for start in range(len(wanted) + 1):
            tried = [*wanted[start:], CPU]
            try:
                return onnxruntime.InferenceSession(
                    data,
                    options,
                    providers=[(name, limits.get(name, {})) for name in tried],
                    enable_fallback=False,
                    disabled_optimizers=["ConstantFolding"],
                )
            except Exception:  # onnxruntime's own classes share no other base
                if start == len(wanted):
                    raise
        raise AssertionError("unreachable")
    finally:
        if wanted:
            onnxruntime.set_default_logger_severity(WARNING)


def within[T](deadline_s: float, work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises.

    Raises:
        TimeoutError: it takes longer; its thread is left behind and ends with the process.
    """
    results: list[T] = []
    problems: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as problem:
            problems.append(problem)

    thread = threading.Thread(target=run, name="opening a policy", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if problems:
        raise problems[0]
    if not results:
        raise TimeoutError(f"takes longer than {deadline_s:g} s")
    return results[0]


def _short(name: str) -> str:
    return name.removesuffix(SUFFIX).lower()


def _register_arena() -> None:
    with _registering:
        _make_arena()


@cache
def _make_arena() -> None:
    """Give ONNX Runtime the arena that all sessions of this module share."""
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    )
    arena = onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY})
    onnxruntime.create_and_register_allocator(memory, arena)
