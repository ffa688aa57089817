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
        """Return x (..., M) of y (..., M), where the columns are a permutation of M.

        A component whose factor is 0 gives one y for every x; x is 0, the middle of its range.
        """
        x, is_constant = torch.empty_like(y), self.factor == 0.0
        factor = self.factor.masked_fill(is_constant, 1.0)
        x[..., self.columns] = ((y - self.offset) / factor).masked_fill(is_constant, 0.0)
        return x
