"""Inference beside the control loop: a slow policy must not stop the ticks.

One request at a time; an answer that comes after `forget` is thrown away.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Infer = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.floating]]
"""Observation field -> (1, *shape) in; a chunk (1, K, A) out."""
JOIN_S = 2.0


@dataclasses.dataclass(frozen=True)
class Inferred:
    """An answer.

    Attributes:
        tag: of its request.
        chunk: (1, K, A); None where the policy failed. problem: why.
        seconds: how long it took.
    """

    tag: int
    chunk: npt.NDArray[np.floating] | None
    problem: str
    seconds: float


class Inference(Protocol):
    """Runs a policy."""

    @property
    def is_busy(self) -> bool:
        """Whether a request has not been answered to `poll` yet."""

    def submit(self, tag: int, obs: Mapping[str, npt.NDArray[Any]]) -> None:
        """Ask for a chunk; only while not busy."""

    def poll(self, patience_s: float) -> Inferred | None:
        """Return the answer, waiting for it at most so long; None if there is none yet."""

    def forget(self) -> None:
        """Let nothing asked for so far be answered any more."""

    def close(self) -> None:
        """Stop."""


def infer_once(infer: Infer, tag: int, obs: Mapping[str, npt.NDArray[Any]]) -> Inferred:
    """Return a policy's answer, or what kept it from one."""
    started = time.perf_counter()
    try:
        chunk = infer(obs)
    except Exception as problem:  # a runtime's own types; a thread that ends never answers again
        seconds = time.perf_counter() - started
        return Inferred(tag, None, f"{type(problem).__name__}: {problem}", seconds)
    return Inferred(tag, chunk, "", time.perf_counter() - started)


class InlineInference:
    """Infers in `submit`: for tests, replay and lock step."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self._answer: Inferred | None = None

    @property
    def is_busy(self) -> bool:
        """See Inference."""
        return self._answer is not None

    def submit(self, tag: int, obs: Mapping[str, npt.NDArray[Any]]) -> None:
        """See Inference."""
        self._answer = infer_once(self._infer, tag, obs)

    def poll(self, patience_s: float) -> Inferred | None:
        """See Inference."""
        answer, self._answer = self._answer, None
        return answer

    def forget(self) -> None:
        """See Inference."""
        self._answer = None

    def close(self) -> None:
        """See Inference."""


class ThreadedInference:
    """Infers in a thread of its own.

    Args:
        infer: the policy; called from that thread alone.
    """

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self._changed = threading.Condition()
        self._request: tuple[int, int, Mapping[str, npt.NDArray[Any]]] | None = None
        self._answer: Inferred | None = None
        self._generation = 0
        self._is_pending = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """See Inference."""
        return self._is_pending

    def submit(self, tag: int, obs: Mapping[str, npt.NDArray[Any]]) -> None:
        """See Inference."""
        with self._changed:
            self._request = self._generation, tag, obs
            self._answer, self._is_pending = None, True
            self._changed.notify_all()

    def poll(self, patience_s: float) -> Inferred | None:
        """See Inference."""
        with self._changed:
            if self._answer is None and self._is_pending and patience_s > 0.0:
                self._changed.wait_for(lambda: self._answer is not None, patience_s)
            answer, self._answer = self._answer, None
            if answer is not None:
                self._is_pending = False
            return answer

    def forget(self) -> None:
        """See Inference."""
        with self._changed:
            self._generation += 1
            self._request = self._answer = None
            self._is_pending = False

    def close(self) -> None:
        """See Inference."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._request is not None or self._is_closed)
                if self._is_closed:
                    return
                assert self._request is not None
                (generation, tag, obs), self._request = self._request, None
            answer = infer_once(self._infer, tag, obs)
            with self._changed:
                if generation == self._generation:
                    self._answer = answer
                    self._changed.notify_all()
