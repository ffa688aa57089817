"""What every simulator checks of its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.base import EnvIds
from grpo_ros.simulators.snapshot import Snapshot


def environment_ids(env_ids: EnvIds, num_envs: int) -> Tensor:
    """Return environment indices (n,) int64; None means all.

    Raises:
        SimulatorError: there is no such environment.
    """
    if env_ids is None:
        return torch.arange(num_envs)
    ids = torch.as_tensor(env_ids, dtype=torch.long)
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= num_envs):
        raise SimulatorError(f"environment ids {ids.tolist()}", expected=f"0 to {num_envs - 1}")
    return ids


def chosen_rows(
    snapshot: Snapshot,
    rows: Sequence[int] | Tensor,
    num: int,
    engine: str,
    own: Mapping[str, Tensor],
) -> Tensor:
    """Return which rows (num,) int64 of a snapshot are restored.

    Args:
        snapshot: that has to fit.
        rows: one per environment.
        num: environments.
        engine: of the simulator. own: its arrays, by name.

    Raises:
        SimulatorError: the snapshot is another engine's, an array of it is missing, unknown or of
            another shape, or it has no such row.
    """
    if snapshot.engine != engine:
        raise SimulatorError(
            f"snapshot of engine '{snapshot.engine}'",
            expected=f"'{engine}'",
            remedy="restore it with the version, task, robot, scene, time step and "
            "task.randomisation.enabled that it was taken with",
        )
    if differing := sorted(set(own) ^ set(snapshot.arrays)):
        raise SimulatorError(
            f"the snapshot and the simulator do not both have {', '.join(differing)}",
            expected=f"the simulator's {len(own)} arrays",
        )
    first = next(iter(snapshot.arrays.values())).shape[:1]
    for name, array in snapshot.arrays.items():
        mine = own[name]
        fits = array.ndim == mine.ndim and array.shape == (*first, *mine.shape[1:])
        if not fits or array.dtype != mine.dtype:
            raise SimulatorError(
                f"the snapshot's '{name}' is {tuple(array.shape)} {array.dtype}",
                expected=f"{(*first, *mine.shape[1:])} {mine.dtype}",
            )
    chosen = torch.as_tensor(rows, dtype=torch.long)
    if len(chosen) != num:
        raise SimulatorError(f"{len(chosen)} rows for {num} environments")
    if num and (int(chosen.min()) < 0 or int(chosen.max()) >= snapshot.num_rows):
        raise SimulatorError(
            f"snapshot rows {chosen.tolist()}", expected=f"0 to {snapshot.num_rows - 1}"
        )
    return chosen


def check_chunk(chunk: Tensor, num_envs: int, num_actions: int) -> None:
    """Raise SimulatorError for a chunk that is not (N, K, A) or not finite."""
    if chunk.ndim != 3 or chunk.shape[0] != num_envs or chunk.shape[2] != num_actions:
        raise SimulatorError(
            f"chunk of shape {tuple(chunk.shape)}", expected=f"({num_envs}, K, {num_actions})"
        )
    if not bool(torch.isfinite(chunk).all()):
        raise SimulatorError("chunk holds a number that is not finite")
