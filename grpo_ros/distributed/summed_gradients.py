"""SummedGradients: a module whose gradients are those of all ranks' losses together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from grpo_ros.distributed.computed import Computed
from grpo_ros.distributed.ranks import ONE_RANK, Ranks

if TYPE_CHECKING:
    from grpo_ros.distributed.sharding import Shards


class SummedGradients:
    """Puts the sum over ranks of each rank's gradient in place, on every rank.

    Args:
        module: what requires gradients in it is decided by the first `compute`, and stays so.
        ranks: that hold the same module.
    """

    def __init__(self, module: nn.Module, ranks: Ranks = ONE_RANK) -> None:
        self._ranks, self._computed = ranks, Computed(module)
        self._shards: Shards | None = getattr(module, "shards", None)
        self._replicated: nn.Module | None = None

    def compute[T](self, work: Callable[[], T]) -> T:
        """Return what the work computes with the module, all that a gradient is to flow from.

        Collective.

        Args:
            work: returns a tensor or a tuple of them; they depend on the same parameters always.
        """
        if self._ranks.num == 1:
            return work()
        if self._shards is not None:
            return self._shards.compute(work)
        if self._replicated is None:
            unused = _unused(self._computed, work())
            self._replicated = self._ranks.replicated(self._computed, unused)
        computed: T = self._replicated(work)
        return computed

    def backward(self, loss: Tensor) -> None:
        """Put the gradient of the sum of all ranks' losses in place. Collective.

        Args:
            loss: this rank's part, a scalar that depends on the last `compute`.
        """
        if self._ranks.num > 1:
            loss = loss * self._ranks.num  # what is replicated or sharded averages
        loss.backward()  # type: ignore[no-untyped-call]


def _unused(module: nn.Module, computed: Any) -> list[str]:
    """Return the names of parameters that require gradients and get none of what was computed."""
    tensors = computed if isinstance(computed, tuple) else (computed,)
    nodes = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen, used = set(nodes), set[int]()
    while nodes:
        node = nodes.pop()
        if (parameter := getattr(node, "variable", None)) is not None:
            used.add(id(parameter))
        following = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= following
        nodes += following
    wanting = ((name, p) for name, p in module.named_parameters() if p.requires_grad)
    return [name for name, parameter in wanting if id(parameter) not in used]
