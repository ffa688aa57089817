"""SavedTensors: how many bytes autograd keeps for a backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class _Kept:
    """A tensor that the graph keeps; told when the graph lets go of it."""

    def __init__(self, tensor: Tensor, counter: SavedTensors) -> None:
        self.tensor = tensor.detach()  # the graph must not keep itself alive
        self.counter = counter
        counter.add(self.tensor)

    def __del__(self) -> None:
        self.counter.remove(self.tensor)


class SavedTensors:
    """Counts, while it is entered, what autograd keeps; each memory once, weights not at all.

    It sees every device alike. What an operation allocates for itself is not in it.

    Args:
        weights: left out.

    Attributes:
        peak: most bytes that were kept at one time.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.peak = self._bytes = 0
        self._uses: dict[int, int] = {}
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._hooks: Any = None

    def __enter__(self) -> SavedTensors:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Kept(tensor, self), lambda kept: kept.tensor
        )
        self._hooks.__enter__()
        return self

    def __exit__(self, *reason: object) -> None:
        self._hooks.__exit__(*reason)

    def add(self, tensor: Tensor) -> None:
        """Count the memory of a tensor, unless it is a weight's or is counted already."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._weights:
            return
        self._uses[place] = self._uses.get(place, 0) + 1
        if self._uses[place] == 1:
            self._bytes += storage.nbytes()
            self.peak = max(self.peak, self._bytes)

    def remove(self, tensor: Tensor) -> None:
        """Take back one `add`."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in self._uses:
            return
        self._uses[place] -= 1
        if not self._uses[place]:
            del self._uses[place]
            self._bytes -= storage.nbytes()
