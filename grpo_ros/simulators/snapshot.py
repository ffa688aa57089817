"""Snapshot: everything that decides what N environments do next, row by row."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import safetensors.torch
import torch
from torch import Tensor

from grpo_ros.errors import SimulatorError

STEP_COUNT = "step_count"
"""Name, in every engine's snapshots, of how far an episode has come."""
ENGINE = "engine"
"""Name of the engine among a snapshot's flat tensors."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Rows of complete environment state: physics, controller, task, randomisation, history.

    Attributes:
        engine: name and version of what wrote it; only the same engine can restore it.
        arrays: name -> (M, ...) tensor on the CPU; row r of every tensor belongs together.
    """

    engine: str
    arrays: Mapping[str, Tensor]

    @property
    def num_rows(self) -> int:
        """M."""
        return int(next(iter(self.arrays.values())).shape[0])

    @property
    def step_count(self) -> Tensor:
        """Control steps of each row's episode so far, (M,) int64."""
        for name, array in self.arrays.items():
            if name.rpartition("/")[2] == STEP_COUNT:
                return array
        raise SimulatorError(
            f"a snapshot of '{self.engine}' without '{STEP_COUNT}'", expected="a count per row"
        )

    def rows(self, index: Sequence[int] | Tensor | slice) -> Snapshot:
        """Return a copy of the given rows."""
        if isinstance(index, slice):
            index = range(*index.indices(self.num_rows))
        chosen = torch.as_tensor(list(index), dtype=torch.long)
        return Snapshot(self.engine, {name: array[chosen] for name, array in self.arrays.items()})

    @classmethod
    def joined(cls, snapshots: Sequence[Snapshot]) -> Snapshot:
        """Return all rows of several snapshots of one engine.

        Raises:
            SimulatorError: they are of different engines.
        """
        engines = {snapshot.engine for snapshot in snapshots}
        if len(engines) != 1:
            raise SimulatorError(
                f"snapshots of {sorted(engines) or 'nothing'} joined", expected="one engine"
            )
        names = snapshots[0].arrays
        return cls(
            engines.pop(),
            {name: torch.cat([each.arrays[name] for each in snapshots]) for name in names},
        )

    def row_hashes(self) -> list[str]:
        """Return one hash per row; equal hashes mean bit-identical state."""
        digests = [
            hashlib.blake2b(self.engine.encode(), digest_size=16) for _ in range(self.num_rows)
        ]
        for name in sorted(self.arrays):
            array = self.arrays[name].contiguous().numpy()
            for digest, row in zip(digests, array, strict=True):
                digest.update(row.tobytes())
        return [digest.hexdigest() for digest in digests]

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it as flat tensors."""
        engine = torch.tensor(list(self.engine.encode()), dtype=torch.uint8)
        return {**self.arrays, ENGINE: engine}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], engine: str) -> Snapshot:
        """Return the snapshot that `tensors` gave; of `engine` where they name none."""
        arrays = dict(tensors)
        if (named := arrays.pop(ENGINE, None)) is not None:
            engine = bytes(named.tolist()).decode(errors="replace")
        return cls(engine, arrays)

    def to_bytes(self) -> bytes:
        """Return the snapshot as safetensors bytes (no pickle)."""
        arrays = {name: array.contiguous() for name, array in self.arrays.items()}
        return safetensors.torch.save(arrays, metadata={ENGINE: self.engine})

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Return the snapshot that `to_bytes` wrote.

        Raises:
            SimulatorError: the bytes are not such a snapshot.
        """
        try:
            arrays = safetensors.torch.load(data)
            header = int.from_bytes(data[:8], "little")
            engine = json.loads(data[8 : 8 + header])["__metadata__"][ENGINE]
        except Exception as error:  # safetensors raises its own types, by version
            raise SimulatorError(
                f"snapshot of {len(data)} bytes cannot be read: {error}",
                expected="bytes written by Snapshot.to_bytes",
            ) from error
        return cls(engine, arrays)
