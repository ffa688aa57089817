"""Computed: a module whose forward computes whatever is asked."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


class Computed(nn.Module):
    """Holds a module and computes with it; what wraps it only knows of its forward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward[T](self, work: Callable[[], T]) -> T:
        """Return what the work gives."""
        return work()
