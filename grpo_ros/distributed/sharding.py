"""Shards: what learns of a policy in parts, one on each rank, by torch's FSDP2.

Gradients and Adam's moments are in parts too. A computation with gradients gathers the parameters
unit by unit and lets them go again. Where a policy only acts it is gathered whole for that long,
so that ranks whose episodes take longer than others' do not wait for each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from grpo_ros.distributed.computed import Computed
from grpo_ros.distributed.ranks import Ranks
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.chunk_policy import ChunkPolicy


class Shards:
    """The shards of one policy. Every call is collective.

    Args:
        policy: whose learned parameters are replaced by shards of them.
        ranks: that hold the same policy.
    """

    def __init__(self, policy: ChunkPolicy, ranks: Ranks) -> None:
        learned = policy.learned()
        chosen = {id(parameter) for parameter in learned.values()}
        units = [u for u in policy.units() if any(id(p) in chosen for p in u.parameters())]
        if not units:
            raise ConfigurationError(
                f"'ranks.parameters' = 'sharded' with a {type(policy).__name__}",
                expected="a policy that is large enough to be worth it: gr00t",
                remedy="ranks.parameters:=whole",
            )
        device = next(iter(learned.values())).device
        mesh = init_device_mesh(device.type, (ranks.num,))
        rest = {parameter for parameter in policy.parameters() if id(parameter) not in chosen}
        self._root = Computed(policy)
        for unit in (*units, self._root):
            fully_shard(unit, mesh=mesh, ignored_params=rest)
        self._parts = [part for part in self._root.modules() if isinstance(part, FSDPModule)]
        self._is_whole = False
        self.compute(lambda: None)  # the root has to be the first to compute
        self.let_go()

    def compute[T](self, work: Callable[[], T]) -> T:
        """Return what the work computes with the policy, gathered as far as it needs it."""
        computed: T = self._root(work)
        return computed

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Hold all parameters on every rank: computing waits for no other then."""
        if self._is_whole:
            yield
            return
        self._is_whole = True
        for part in self._parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in self._parts:
                part.set_reshard_after_forward(True, recurse=False)
            self._is_whole = False
            self.let_go()

    def let_go(self) -> None:
        """Hold shards alone, also where a computation was not followed by its gradient."""
        for part in self._parts:
            part.reshard()
