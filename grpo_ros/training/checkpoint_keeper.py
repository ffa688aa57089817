"""CheckpointKeeper: which of a run's checkpoints are kept: the last ones, and the best."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grpo_ros.training.checkpoint import BEST, checkpoints, save_checkpoint
from grpo_ros.training.settings import CheckpointConfig


class CheckpointKeeper:
    """Writes a run's checkpoints and drops old ones.

    Args:
        folder: of the checkpoints.
        config: how many are kept.
        is_writer: whether this process writes; other ranks only compute the state.

    Attributes:
        best: highest success on the curve so far.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, is_writer: bool) -> None:
        self._folder, self._config, self._is_writer = folder, config, is_writer
        self.best = 0.0

    def save(self, iteration: int, state: Mapping[str, Any]) -> Path:
        """Write the checkpoint of an iteration, and drop those that are too old; return its path.

        Raises:
            CheckpointError: the disk refuses, or the state is not finite.
        """
        path = self._folder / f"{iteration:06d}"
        if self._is_writer:
            self._write(path, state)
            for old in checkpoints(self._folder)[: -self._config.keep_last]:
                shutil.rmtree(old, ignore_errors=True)
        return path

    def offer(self, success: float, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the state if no success on the curve was higher.

        Args:
            success: on the curve, of the present policy.
            state: gives the state; called on all ranks or on none.
        """
        if success <= self.best:
            return
        self.best = success
        if self._config.keep_best:
            found = state()
            if self._is_writer:
                self._write(self._folder / BEST, found)

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        path.parent.mkdir(exist_ok=True)
        save_checkpoint(path, state)
