"""Histograms with fixed bins, so that those of different iterations and runs can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

SHARE_EDGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Bins of values in [0, 1]: [0, 0.1), ..., [0.9, 1), and 1 itself."""
ADVANTAGE_EDGES = (-3.0, -2.0, -1.5, -1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How many values lie in each bin.

    Attributes:
        edges: ascending; of n + 1 edges there are n bins, or n + 1 where the last edge counts by
            itself.
        counts: of each bin; what lies beyond the edges is in the outermost.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def share_histogram(values: Tensor) -> Histogram:
    """Return how values in [0, 1] are distributed; exactly 1 has a bin of its own."""
    finite = values[torch.isfinite(values)].clamp(0.0, 1.0)
    index = (finite.double() * 10.0 + 1e-6).floor().long()
    return Histogram(SHARE_EDGES, tuple(torch.bincount(index, minlength=11).tolist()))


def edge_histogram(values: Tensor, edges: Sequence[float]) -> Histogram:
    """Return how values are distributed between edges."""
    finite = values[torch.isfinite(values)].double().contiguous()
    inner = torch.tensor(edges[1:-1], dtype=torch.float64)
    index = torch.bucketize(finite, inner, right=True)
    counts = torch.bincount(index, minlength=len(edges) - 1)
    return Histogram(tuple(edges), tuple(counts.tolist()))
