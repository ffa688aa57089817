"""What every simulator checks of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.base import EnvIds


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


def check_chunk(chunk: Tensor, num_envs: int, num_actions: int) -> None:
    """Raise SimulatorError for a chunk that is not (N, K, A) or not finite."""
    if chunk.ndim != 3 or chunk.shape[0] != num_envs or chunk.shape[2] != num_actions:
        raise SimulatorError(
            f"chunk of shape {tuple(chunk.shape)}", expected=f"({num_envs}, K, {num_actions})"
        )
    if not bool(torch.isfinite(chunk).all()):
        raise SimulatorError("chunk holds a number that is not finite")
