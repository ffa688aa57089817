"""Ranks: what the processes of one training run tell each other."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from grpo_ros.errors import ConfigurationError

if TYPE_CHECKING:
    from grpo_ros.policies.chunk_policy import ChunkPolicy


class Span(NamedTuple):
    """Which of all ranks' `total` rows are this rank's: `num`, from `first` on."""

    first: int
    num: int
    total: int


class Ranks:
    """A run of one process: what it says to the others is what it hears.

    Every call is collective: all ranks make the same calls in the same order, with tensors of the
    same type, and all get the same answer.

    Attributes:
        index: this process, from 0. num: how many there are.
    """

    index: int = 0
    num: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files and talks to people."""
        return self.index == 0

    def share(self, num: int) -> slice:
        """Return which of `num` things are this rank's: contiguous blocks, in rank order."""
        return slice(num * self.index // self.num, num * (self.index + 1) // self.num)

    def span(self, num: int) -> Span:
        """Return where this rank's `num` rows are among those of all ranks, in rank order."""
        return Span(0, num, num)

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over ranks, same shape."""
        return value

    def maximum(self, value: Tensor) -> Tensor:
        """Return the greatest over ranks of each entry, same shape."""
        return value

    def gather(self, value: Tensor) -> Tensor:
        """Return (B_0 + B_1 + ..., ...) of each rank's (B_r, ...), in rank order."""
        return value

    def broadcast[T](self, value: T) -> T:
        """Return rank 0's value, which JSON can hold; tuples may come as lists."""
        return value

    def copy_first(self, value: Tensor) -> None:
        """Make a tensor rank 0's, in place."""

    def on_first[T](self, work: Callable[[], T]) -> T:
        """Return what the work gives on rank 0, which alone does it: what JSON can hold.

        Raises:
            RankError: on the other ranks, where it failed on rank 0.
        """
        return work()

    def replicated(self, module: nn.Module, unused: Collection[str]) -> nn.Module:
        """Return a module around one whose gradients are averaged over ranks as they come up.

        Args:
            module: the same on all ranks.
            unused: names of parameters that no loss depends on, though they require gradients.
        """
        return module

    def shard(self, policy: ChunkPolicy) -> None:
        """Keep but a part of what learns of a policy here, for good, where that is wanted.

        Copies are made before. Collective.

        Raises:
            ConfigurationError: it is wanted, and the policy is not made for it.
        """

    def close(self) -> None:
        """Leave the others; idempotent."""


ONE_RANK = Ranks()
"""A run of one process."""


def own_share(num_groups: int, ranks: Ranks) -> range:
    """Return the numbers of a rank's groups.

    Raises:
        ConfigurationError: the ranks cannot have as many each.
    """
    if num_groups % ranks.num:
        raise ConfigurationError(
            f"'collection.num_groups' = {num_groups} on {ranks.num} ranks",
            expected=f"a multiple of {ranks.num}: each rank owns as many whole groups",
            remedy=f"num_groups:={-(-num_groups // ranks.num) * ranks.num}",
        )
    part = ranks.share(num_groups)
    return range(part.start, part.stop)
