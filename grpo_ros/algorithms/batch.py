"""Batch: a rollout as rows, one per decision, masked by weight and never dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import Span
from grpo_ros.policies.base import ActionSample
from grpo_ros.training.rollout import Rollout


@dataclasses.dataclass(frozen=True)
class Batch:
    """B decisions. Every tensor is finite.

    Attributes:
        obs: field -> (B, *shape).
        sample: leading dimension B.
        executed: (B, K) bool; all False in padding rows and in rows with a value not finite.
        advantages: (B, 1) float32.
        weight: (B, K) float32, of each step in the loss; 0 where not executed.
        num_bad_rows: executed rows that were masked because a value was not finite.
        fresh: (B,) bool, rows that the present policy sampled; None: all of them.
    """

    obs: Mapping[str, Tensor]
    sample: ActionSample
    executed: Tensor
    advantages: Tensor
    weight: Tensor
    num_bad_rows: int = 0
    fresh: Tensor | None = None

    def __len__(self) -> int:
        return len(self.executed)

    def rows(self, index: Tensor) -> Batch:
        """Return the given rows."""
        return Batch(
            {name: value[index] for name, value in self.obs.items()},
            self.sample.rows(index),
            self.executed[index],
            self.advantages[index],
            self.weight[index],
            fresh=None if self.fresh is None else self.fresh[index],
        )

    @property
    def fresh_steps(self) -> Tensor:
        """(B, K) bool, steps carried out that the present policy had sampled."""
        if self.fresh is None:
            return self.executed
        return self.executed & self.fresh.unsqueeze(1)

    def filler(self) -> Batch:
        """Return one row that changes nothing, for a rank that has none of a minibatch."""
        row = self.rows(torch.zeros(1, dtype=torch.long))
        return dataclasses.replace(
            row, executed=torch.zeros_like(row.executed), weight=torch.zeros_like(row.weight)
        )


def flatten_rollout(
    rollout: Rollout, advantages: Tensor, weight: Tensor, fresh: Tensor | None = None
) -> Batch:
    """Return the rows of a rollout, environment-major.

    A row that holds a NaN or an infinity is zeroed and masked; one bad reading must not reach the
    optimiser through 0 * NaN.

    Args:
        rollout: leading dimensions (N, T).
        advantages: (N,) of each episode, or (N, T) of each decision.
        weight: (N,) or (N, T), of each row in the loss.
        fresh: (N,) bool, episodes of the present policy; None: all of them.
    """
    num_decisions = rollout.executed.shape[1]
    executed = rollout.executed.flatten(0, 1)
    obs = {name: value.flatten(0, 1) for name, value in rollout.obs.items()}
    sample = rollout.sample.flatten()
    parts = [*obs.values(), sample.chunk, sample.log_prob, *sample.latents.values()]
    finite = torch.stack([_finite_rows(part) for part in parts]).all(dim=0)
    num_bad_rows = int((~finite & executed.any(dim=1)).sum())
    if not finite.all():
        obs = {name: _zero_rows(value, finite) for name, value in obs.items()}
        sample = ActionSample(
            _zero_rows(sample.chunk, finite),
            _zero_rows(sample.log_prob, finite),
            {name: _zero_rows(value, finite) for name, value in sample.latents.items()},
        )
        executed = executed & finite.unsqueeze(1)
    row_weight = _per_row(weight, num_decisions)
    return Batch(
        obs,
        sample,
        executed,
        _per_row(advantages, num_decisions),
        torch.where(executed, row_weight, 0.0),
        num_bad_rows,
        None if fresh is None else fresh.repeat_interleave(num_decisions),
    )


def minibatches(has_weight: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """Return a shuffled partition of all rows into minibatches.

    Each holds an equal share of the rows that have weight, about `size` of them, so that the noise
    of a gradient does not depend on how many rows are masked; masked rows are dealt out as well.

    Args:
        has_weight: (B,) bool.
        size: wanted rows with weight per minibatch.
        generator: on the CPU.
    """
    has_weight = has_weight.cpu()
    order = torch.randperm(len(has_weight), generator=generator)
    weighted, masked = order[has_weight[order]], order[~has_weight[order]]
    num_parts = max(1, round(len(weighted) / size))
    parts = zip(weighted.tensor_split(num_parts), masked.tensor_split(num_parts), strict=True)
    return [torch.cat(pair) for pair in parts]


def own_rows(index: Tensor, span: Span) -> Tensor:
    """Return which of this rank's rows are among some of all ranks' rows, in the same order.

    Args:
        index: (B,) of all ranks' rows, rank after rank.
        span: where this rank's are.
    """
    if span.num == span.total:
        return index
    own = index - span.first
    return own[(own >= 0) & (own < span.num)]


def _per_row(values: Tensor, num_decisions: int) -> Tensor:
    """Return (N,) or (N, T) as (N * T, 1)."""
    if values.dim() == 1:
        values = values.unsqueeze(1).expand(-1, num_decisions)
    return values.reshape(-1, 1)


def _finite_rows(value: Tensor) -> Tensor:
    if not value.is_floating_point():
        return torch.ones(len(value), dtype=torch.bool, device=value.device)
    return torch.isfinite(value.reshape(len(value), -1)).all(dim=1)


def _zero_rows(value: Tensor, keep: Tensor) -> Tensor:
    shape = (-1, *[1] * (value.dim() - 1))
    return torch.where(keep.view(shape), value, torch.zeros_like(value))
