"""FailureStore: the failed rollouts of a run, one file per iteration, the oldest dropped first.

`failures/<iteration>_<first group>.safetensors` holds the exact states that failures started in,
once for each group, and the actions of each failure; its metadata hold the engine and the hash of
the state that each ended in. Ranks write files of their own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from grpo_ros.errors import ReplayError, TrainingError
from grpo_ros.files import write_atomically
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.failures.config import FailureConfig
from grpo_ros.training.failures.failure import Failure, FailureId
from grpo_ros.training.rollout import Rollout

SCHEMA = 1
SUFFIX = ".safetensors"
START, ABOUT = "start/", "about"
BYTES_PER_MB = 1e6


def failed(rollout: Rollout) -> Tensor:
    """Return which episodes (N,) did not succeed, those whose outcome is not a number included."""
    return ~(rollout.outcome >= 0.5)


class FailureStore:
    """Writes and reads the failed rollouts of a run.

    Args:
        folder: of the files.
        keep_mb: how much is kept.
    """

    def __init__(self, folder: Path, keep_mb: float = FailureConfig.keep_mb) -> None:
        self.folder, self._keep_bytes = folder, keep_mb * BYTES_PER_MB

    def keep(
        self,
        iteration: int,
        groups: Sequence[int],
        start: Snapshot,
        final: Sequence[str],
        rollout: Rollout,
    ) -> None:
        """Write an iteration's failures.

        Args:
            iteration: of the rollout. groups: the numbers of its groups.
            start: (M,) the states that groups started in.
            final: hash of each episode's last state.
            rollout: of M groups.

        Raises:
            TrainingError: the disk refuses.
        """
        rows = torch.nonzero(failed(rollout)).squeeze(1)
        if len(rows) == 0:
            return
        size = rollout.group_size
        places, place = torch.unique(rows // size, return_inverse=True)
        success = (~failed(rollout)).view(-1, size).float().mean(dim=1)
        numbers = torch.tensor(list(groups))
        tensors = {
            **{START + name: value for name, value in start.rows(places).arrays.items()},
            "place": place,
            "group": numbers[rows // size],
            "member": rows % size,
            "chunk": rollout.sample.chunk[rows].float(),
            "executed": rollout.executed[rows],
            "score": rollout.score[rows].float(),
            "group_success": success[rows // size],
        }
        # One entry: the order of several differs from process to process.
        about = {
            "schema": SCHEMA,
            "engine": start.engine,
            "final": [final[row] for row in rows.tolist()],
        }
        packed = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        path = self.folder / f"{iteration:06d}_{groups[0]:04d}{SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, safetensors.torch.save(packed, {ABOUT: json.dumps(about)}))
            self._drop_oldest(path)
        except OSError as problem:
            raise TrainingError(
                f"{path} not written: {problem.strerror}",
                remedy="free some space, or failures.keep_mb:=0, then give the same command; the "
                "previous checkpoint is intact",
            ) from problem

    def _drop_oldest(self, newest: Path) -> None:
        sizes = {}
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # another rank has just dropped it
                sizes[path] = path.stat().st_size
        too_much = sum(sizes.values()) - self._keep_bytes
        for path, size in sizes.items():
            if too_much <= 0:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                too_much -= size

    def _files(self) -> list[Path]:
        """Return all files, of the oldest iteration first."""
        return sorted(self.folder.glob(f"*_*{SUFFIX}"))

    def failures(self) -> list[Failure]:
        """Return all that are kept, of the newest iteration first.

        Raises:
            ReplayError: a file is damaged.
        """
        found = [each for path in self._files() for each in _read(path)]
        return sorted(found, key=lambda each: (-each.id.iteration, each.id.group, each.id.member))

    def load(self, name: FailureId) -> Failure:
        """Return one of them.

        Raises:
            ReplayError: there is none of that name, or its file is damaged.
        """
        paths = [path for path in self._files() if path.name.startswith(f"{name.iteration:06d}_")]
        for path in paths:
            for each in _read(path):
                if each.id == name:
                    return each
        if not paths:
            kept = sorted({int(path.name.split("_")[0]) for path in self._files()})
            told = f"iterations {kept[0]} to {kept[-1]}" if kept else "nothing"
            raise ReplayError(
                f"rollout {name}: nothing is kept of iteration {name.iteration}",
                expected=f"of what {self.folder} keeps: {told}",
            )
        raise ReplayError(
            f"rollout {name} is not among the failures of iteration {name.iteration}",
            remedy="`grpo-ros replay` without an ID lists those that failed",
        )


def _read(path: Path) -> list[Failure]:
    """Return the failures of a file; nothing in it is run."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})[ABOUT])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["schema"] != SCHEMA:
            raise ReplayError(f"{path} has schema {about['schema']}", expected=f"schema {SCHEMA}")
        arrays = {k.removeprefix(START): v for k, v in tensors.items() if k.startswith(START)}
        start = Snapshot(about["engine"], arrays)
        iteration = int(path.name.split("_")[0])
        return [
            Failure(
                FailureId(iteration, int(tensors["group"][i]), int(tensors["member"][i])),
                start.rows([int(tensors["place"][i])]),
                tensors["chunk"][i],
                tensors["executed"][i],
                float(tensors["score"][i]),
                float(tensors["group_success"][i]),
                str(each),
            )
            for i, each in enumerate(about["final"])
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError, SafetensorError) as problem:
        raise ReplayError(
            f"{path} cannot be read: {problem}",
            expected="a file that training has written",
            remedy="remove it to see the others",
        ) from problem
