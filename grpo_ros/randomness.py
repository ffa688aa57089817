"""Counter-based random numbers: every draw is a function of its key and of nothing else.

A draw belongs to (stream, seed, iteration, group, member). The stream and the seed are the key
of a Philox generator and the other three its counter, so two different tuples can never share a
number (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), and a result does
not depend on who shares a batch, a thread or a rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch


class Key(NamedTuple):
    """The identity of one random draw."""

    seed: int
    iteration: int = 0
    group: int = 0
    member: int = 0


def stream_id(stream: str) -> int:
    """Return the 64-bit number of a named stream; distinct names give unrelated numbers."""
    return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")


def generator(stream: str, key: Key) -> np.random.Generator:
    """Return the generator of one key in one named stream."""
    counter = [0, key.member, key.group, key.iteration]
    return np.random.Generator(
        np.random.Philox(key=[key.seed, stream_id(stream)], counter=counter)
    )


def normal(stream: str, keys: Sequence[Key], shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal noise (len(keys), *shape) float32, row i from keys[i] alone."""
    rows = [generator(stream, key).standard_normal(shape, dtype=np.float32) for key in keys]
    return torch.from_numpy(np.stack(rows))


def uniform(stream: str, keys: Sequence[Key], num: int) -> torch.Tensor:
    """Return uniform numbers in [0, 1), (len(keys), num) float64, row i from keys[i] alone."""
    return torch.from_numpy(np.stack([generator(stream, key).random(num) for key in keys]))


def torch_generator(stream: str, key: Key) -> torch.Generator:
    """Return a torch generator seeded from one key (for shuffles and weight initialisation)."""
    seed = int(generator(stream, key).integers(0, 2**63 - 1))
    return torch.Generator().manual_seed(seed)
