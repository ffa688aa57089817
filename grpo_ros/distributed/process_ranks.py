"""ProcessRanks: ranks that `torchrun` started, which talk by torch.distributed."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from grpo_ros.distributed.ranks import ONE_RANK, Ranks, Span
from grpo_ros.errors import ConfigurationError, GrpoRosError, RankError

if TYPE_CHECKING:
    from grpo_ros.policies.chunk_policy import ChunkPolicy

BACKEND = "cpu:gloo,cuda:nccl"


class ProcessRanks(Ranks):
    """This process among others, which were started with the same configuration.

    Tensors on the CPU travel by gloo, those on a GPU by NCCL.

    Args:
        timeout_s: how long a call waits for the other ranks.
        is_sharding: whether what learns of a policy is to be in shards.

    Raises:
        RankError: the others do not come within the timeout.
    """

    def __init__(self, timeout_s: float, is_sharding: bool = False) -> None:
        self._is_sharding = is_sharding
        self.timeout_s, has_gpu = timeout_s, torch.cuda.is_available()
        if has_gpu:
            # "cuda" then means this rank's own, wherever a configuration says it.
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self.index, self.num = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        with self._deadline("meeting"):
            dist.init_process_group(
                BACKEND if has_gpu else "gloo", timeout=datetime.timedelta(seconds=timeout_s)
            )

    def span(self, num: int) -> Span:
        """Return where this rank's `num` rows are among those of all ranks, in rank order."""
        lengths = self._lengths(num)
        return Span(sum(lengths[: self.index]), num, sum(lengths))

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over ranks, same shape."""
        return self._reduced(value, dist.ReduceOp.SUM)

    def maximum(self, value: Tensor) -> Tensor:
        """Return the greatest over ranks of each entry, same shape; a NaN counts as infinity."""
        return self._reduced(value.nan_to_num(nan=torch.inf), dist.ReduceOp.MAX)

    def gather(self, value: Tensor) -> Tensor:
        """Return (B_0 + B_1 + ..., ...) of each rank's (B_r, ...), in rank order."""
        value = value.detach().contiguous()
        lengths = self._lengths(len(value))
        sent = value.to(torch.uint8) if value.dtype == torch.bool else value
        padded = sent.new_zeros(max(lengths), *sent.shape[1:])
        padded[: len(sent)] = sent
        found = [torch.empty_like(padded) for _ in lengths]
        with self._deadline("a gather"):
            dist.all_gather(found, padded)
        parts = [part[:length] for part, length in zip(found, lengths, strict=True)]
        return torch.cat(parts).to(value.dtype)

    def broadcast[T](self, value: T) -> T:
        """Return rank 0's value, which JSON can hold; tuples come as lists."""
        data = json.dumps(value).encode() if self.is_first else b""
        length = torch.tensor(len(data))
        with self._deadline("a broadcast"):
            dist.broadcast(length, src=0)
            sent = torch.zeros(int(length), dtype=torch.uint8)
            if self.is_first:
                sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            dist.broadcast(sent, src=0)
        found: T = json.loads(sent.numpy().tobytes())
        return found

    def copy_first(self, value: Tensor) -> None:
        """Make a tensor rank 0's, in place."""
        sent = value.detach().contiguous()
        with self._deadline("a broadcast"):
            dist.broadcast(sent, src=0)
        if not self.is_first:
            value.detach().copy_(sent)

    def on_first[T](self, work: Callable[[], T]) -> T:
        """Return what the work gives on rank 0, which alone does it.

        Raises:
            RankError: on the other ranks, where it failed on rank 0.
        """
        answer: tuple[Any, str] = (None, "")
        try:
            if self.is_first:
                answer = (work(), "")
        except Exception as problem:
            self.broadcast((None, f"{type(problem).__name__}: {problem}"))
            raise
        value, problem_text = self.broadcast(answer)
        if problem_text:
            raise RankError(f"rank 0 failed: {problem_text}")
        found: Any = value
        return found  # type: ignore[no-any-return]

    def replicated(self, module: nn.Module, unused: Collection[str]) -> nn.Module:
        """Return a module around one whose gradients are averaged over ranks as they come up."""
        set_ignored = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        set_ignored(module, unused)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(module, broadcast_buffers=False)

    def shard(self, policy: ChunkPolicy) -> None:
        """Keep but a part of what learns of a policy here, for good, where that is wanted.

        Copies are made before. Collective.

        Raises:
            ConfigurationError: it is wanted, and the policy is not made for it.
        """
        if self._is_sharding:
            from grpo_ros.distributed.sharding import Shards

            policy.shards = Shards(policy, self)

    def close(self) -> None:
        """Leave the others; idempotent."""
        if dist.is_initialized():
            dist.destroy_process_group()

    def _lengths(self, num: int) -> list[int]:
        """Return the number of each rank."""
        lengths = torch.zeros(self.num, dtype=torch.long)
        lengths[self.index] = num
        return [int(length) for length in self.sum(lengths)]

    def _reduced(self, value: Tensor, operation: Any) -> Tensor:
        reduced = value.detach().clone()
        with self._deadline("a reduction"):
            dist.all_reduce(reduced, operation)
        return reduced

    @contextmanager
    def _deadline(self, what: str) -> Iterator[None]:
        """Name the rank and the deadline where torch's own error names neither."""
        try:
            yield
        except GrpoRosError:
            raise
        except RuntimeError as problem:  # what torch raises for a lost peer and a deadline alike
            raise RankError(
                f"rank {self.index} of {self.num} lost the others in {what}: "
                f"{str(problem).splitlines()[0]}",
                expected=f"all of them within ranks.timeout_s = {self.timeout_s:g} s",
                remedy="see what the other ranks wrote; raise ranks.timeout_s where one is slow",
            ) from problem


def ranks_from_environment(timeout_s: float, is_sharding: bool = False) -> Ranks:
    """Return the ranks that `torchrun` started this process among; one without it.

    Raises:
        ConfigurationError: the environment names several ranks, but not which this is.
        RankError: the others do not come within the timeout.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ONE_RANK
    if missing := [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if n not in os.environ]:
        raise ConfigurationError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {missing} are not in the environment",
            remedy="start it with torchrun, or unset WORLD_SIZE",
        )
    return ProcessRanks(timeout_s, is_sharding)


def refuse_several(what: str) -> None:
    """Raise ConfigurationError where `torchrun` started this process among others."""
    if (num := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ConfigurationError(
            f"{what} is started on {num} ranks",
            expected="one",
            remedy="torchrun ... -m grpo_ros train runs several, without ROS",
        )
