"""Requests to a running trainer: pause, save, export, stop. Safe from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from grpo_ros.distributed.ranks import ONE_RANK, Ranks


class Requests:
    """Collects requests; the trainer honours them between iterations."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._is_paused = self._is_stopping = False
        self._checkpoints: list[Future[Path]] = []
        self._exports: list[Future[Path]] = []

    def pause(self, is_paused: bool) -> None:
        """Hold or go on with training."""
        with self._condition:
            self._is_paused = is_paused
            self._condition.notify_all()

    def stop(self) -> None:
        """End training after this iteration, with a checkpoint."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()

    def checkpoint(self) -> Future[Path]:
        """Ask for a checkpoint; the future gives its folder."""
        return self._add(self._checkpoints)

    def export(self) -> Future[Path]:
        """Ask for the present policy as ONNX; the future gives its path."""
        return self._add(self._exports)

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._is_stopping

    @property
    def is_paused(self) -> bool:
        """Whether training is held."""
        return self._is_paused

    def take(self) -> tuple[list[Future[Path]], list[Future[Path]]]:
        """Return and clear the checkpoint and export requests."""
        with self._condition:
            taken = self._checkpoints, self._exports
            self._checkpoints, self._exports = [], []
        return taken

    def wait_while_paused(self, timeout_s: float = 0.5) -> bool:
        """Wait for a change while paused; return whether still paused and nothing to do."""
        with self._condition:
            if self._is_paused and not self._is_stopping and not self._pending():
                self._condition.wait(timeout_s)
            return self._is_paused and not self._is_stopping

    def serve(
        self, save: Callable[[], Path], export: Callable[[], Path], ranks: Ranks = ONE_RANK
    ) -> bool:
        """Do what was asked of rank 0, on all ranks; return whether training is paused.

        Collective.
        """
        # One that was cancelled meanwhile is left out before the others hear of it.
        saves, exports = (
            [f for f in futures if f.set_running_or_notify_cancel()] for futures in self.take()
        )
        num_saves, num_exports = ranks.broadcast((len(saves), len(exports)))
        for futures, num, work in ((saves, num_saves, save), (exports, num_exports, export)):
            for number in range(num):
                _answer(futures[number] if ranks.is_first else Future(), work)
        return ranks.broadcast(self.wait_while_paused())

    def refuse_all(self, error: Exception) -> None:
        """Fail every open request, once training has ended."""
        for futures in self.take():
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)

    def _pending(self) -> bool:
        return bool(self._checkpoints or self._exports)

    def _add(self, queue: list[Future[Path]]) -> Future[Path]:
        future: Future[Path] = Future()
        with self._condition:
            queue.append(future)
            self._condition.notify_all()
        return future


def _answer(future: Future[Path], work: Callable[[], Path]) -> None:
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
