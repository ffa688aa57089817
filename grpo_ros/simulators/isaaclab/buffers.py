"""What Isaac Lab's ring and history buffers remember of each environment.

They keep time in front of environments, and a ring's place to write is one for all of them: a row
of such an array is no environment's, and what was read may have to be put back elsewhere.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MODULE = "isaaclab.utils.buffers"
RING, HISTORY = "DelayBuffer", "CircularBuffer"


def is_buffer(node: Any) -> bool:
    """Return whether an object is a buffer whose frames are not rows of environments."""
    kind = type(node)
    if not kind.__module__.startswith(MODULE) or kind.__name__ not in (RING, HISTORY):
        return False
    return getattr(node, "_stack_dim_internal", None) is None


def read_frames(buffer: Any) -> Tensor | None:
    """Return copies of all frames (N, K, ...), oldest first; None where there are none yet.

    Those of a ring from before an environment's last reset, which nobody reads, are zero.
    """
    if buffer._buffer is None:
        return None
    frames = torch.roll(buffer._buffer, -_written(buffer), 0).transpose(0, 1).clone()
    if type(buffer).__name__ == RING:
        age = torch.arange(frames.shape[1], 0, -1, device=frames.device)
        frames[age > buffer._num_pushes.unsqueeze(1)] = 0
    return frames


def write_frames(buffer: Any, ids: Tensor, frames: Tensor) -> None:
    """Put frames (n, K, ...), oldest first, into environments (n,)."""
    target = buffer._buffer
    on_device = frames.to(target.device).transpose(0, 1)
    target[:, ids.to(target.device)] = torch.roll(on_device, _written(buffer), 0)
    if hasattr(buffer, "_need_reset"):
        buffer._need_reset = True  # it looks which environments begin, at the next push


def _written(buffer: Any) -> int:
    """Return where a ring is written next, which is where its oldest frame is; 0: in order."""
    return int(buffer._write_index) if hasattr(buffer, "_write_index") else 0
