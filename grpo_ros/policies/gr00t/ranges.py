"""Ranges: linear maps between a contract's numbers and a checkpoint's, component by component."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grpo_ros.policies.gr00t.embodiment import Scale


class LinearMap(nn.Module):
    """y_i = factor_i x_{column_i} + offset_i.

    Args:
        columns: (M,) of x that are taken, in the order of y.
        scale: factor and offset (M,).
    """

    columns: Tensor
    factor: Tensor
    offset: Tensor

    def __init__(self, columns: Sequence[int], scale: Scale) -> None:
        super().__init__()
        self.register_buffer("columns", torch.tensor(columns, dtype=torch.long), persistent=False)
        self.register_buffer("factor", torch.tensor(scale.factor), persistent=False)
        self.register_buffer("offset", torch.tensor(scale.offset), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return y (..., M) of x (..., at least as many)."""
        return x[..., self.columns] * self.factor + self.offset

    def inverse(self, y: Tensor) -> Tensor:
        """Return x (..., M) of y (..., M), where the columns are a permutation of M."""
        x = torch.empty_like(y)
        x[..., self.columns] = (y - self.offset) / self.factor
        return x
