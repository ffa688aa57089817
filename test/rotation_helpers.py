"""Rotations that only tests make, and the angle between two."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_from_yaw(yaw: Tensor) -> Tensor:
    """Return quaternions (..., 4) that turn by yaw (...,) rad about z."""
    zero = torch.zeros_like(yaw)
    return torch.stack([zero, zero, torch.sin(0.5 * yaw), torch.cos(0.5 * yaw)], dim=-1)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle (...,) in rad of the rotation from one to another matrix (..., 3, 3)."""
    relative = first.mT @ second
    turned = relative - relative.mT
    sine = 0.5 * torch.stack([turned[..., 2, 1], turned[..., 0, 2], turned[..., 1, 0]], dim=-1)
    trace = torch.diagonal(relative, dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(torch.linalg.vector_norm(sine, dim=-1), 0.5 * (trace - 1.0))
