"""Behaviour cloning: fit a policy to demonstrated chunks."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.distributed.summed_gradients import SummedGradients
from grpo_ros.errors import ConfigurationError, TrainingError
from grpo_ros.policies.chunk_policy import ChunkPolicy

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, mean loss since the last call)."""
PERCEIVED_ROWS = 256
"""Observations that a policy perceives at once."""

Measure = Callable[[], float]
"""Measures the policy's success in [0, 1] as it is now."""


@dataclasses.dataclass(frozen=True)
class BehaviourCloningConfig:
    """Settings of behaviour cloning."""

    num_steps: int = typed.setting(1500, "Gradient steps", minimum=0)
    batch_size: int = typed.setting(256, "Demonstrated chunks per gradient step", minimum=1)
    learning_rate: float = typed.setting(
        1e-3, "AdamW's first learning rate; falls to 0 as a cosine", minimum=0.0, maximum=1.0
    )
    weight_decay: float = typed.setting(1e-2, "AdamW's weight decay", minimum=0.0)
    maximum_grad_norm: float = typed.setting(1.0, "Gradients are scaled to this", minimum=0.0)
    report_every: int = typed.setting(100, "Steps between calls of the progress", minimum=1)
    measure_every: int = typed.setting(150, "Steps between measurements of success", minimum=1)
    maximum_success: float = typed.setting(
        1.0,
        "Stop above this measured success, keep the last weights not above; 1 measures nothing",
        minimum=0.0,
        maximum=1.0,
    )


def fit(
    policy: ChunkPolicy,
    obs: Mapping[str, Tensor],
    chunk: Tensor,
    weight: Tensor,
    config: BehaviourCloningConfig,
    generator: torch.Generator,
    *,
    progress: Progress | None = None,
    measure: Measure | None = None,
    ranks: Ranks = ONE_RANK,
) -> None:
    """Fit the policy's statistics, then the policy, to D demonstrated decisions.

    Every rank has all of them. A batch is drawn whole on each, with its noise; each computes with
    a share of its rows.

    AdamW (1711.05101) with the learning rate lr_i = lr (1 + cos(pi i / num_steps)) / 2.

    Args:
        policy: changed in place.
        obs: field -> (D, *shape). chunk: (D, K, A) float32 in [-1, 1].
        weight: (D, K) float32, 0 where a step was not demonstrated.
        config: settings.
        generator: on the CPU; all randomness.
        progress: called every `report_every` steps.
        measure: called every `measure_every` steps where maximum_success < 1.
        ranks: that fit the same policy.

    Raises:
        ConfigurationError: there are more ranks than rows in a batch.
        TrainingError: no demonstrations, or a value or loss that is not finite.
    """
    if config.batch_size < ranks.num:
        raise ConfigurationError(
            f"'behaviour_cloning.batch_size' = {config.batch_size} on {ranks.num} ranks",
            expected="at least one row for each rank",
        )
    with policy.cloning():
        with policy.gathered():
            seen = _perceived(policy, obs, chunk)
        policy.fit_statistics(seen)
        for buffer in policy.buffers():  # ranks may differ in rounding
            ranks.copy_first(buffer)
        gradients, own = SummedGradients(policy, ranks), ranks.share(config.batch_size)
        parameters = [p for p in policy.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        limit = _SuccessLimit(config.maximum_success, measure)
        recent: list[Tensor] = []
        num_steps = config.num_steps
        for done in range(1, num_steps + 1):
            cosine = 0.5 * (1.0 + math.cos(math.pi * (done - 1) / num_steps))
            optimizer.param_groups[0]["lr"] = config.learning_rate * cosine
            index = torch.randint(len(chunk), (config.batch_size,), generator=generator)
            whole_noise = policy.cloning_noise(config.batch_size, generator)
            noise = {name: value[own] for name, value in whole_noise.items()}
            row_weight, index = weight[index], index[own]
            rows = {name: value[index] for name, value in seen.items()}
            error = gradients.compute(
                functools.partial(policy.cloning_error, rows, chunk[index], noise)
            )
            batch_loss = (error * row_weight[own]).sum() / row_weight.sum().clamp(min=1.0)
            optimizer.zero_grad(set_to_none=True)
            gradients.backward(batch_loss)
            torch.nn.utils.clip_grad_norm_(parameters, config.maximum_grad_norm)
            optimizer.step()
            recent.append(batch_loss.detach())
            if done % config.report_every == 0 or done == num_steps:
                loss = _mean_loss(recent, done, ranks)
                recent.clear()
                if progress is not None:
                    progress(done, num_steps, loss)
            is_due = done % config.measure_every == 0 or done == num_steps
            if is_due and limit.is_exceeded(policy):
                limit.restore(policy)
                break


def _perceived(
    policy: ChunkPolicy, obs: Mapping[str, Tensor], chunk: Tensor
) -> Mapping[str, Tensor]:
    num = len(next(iter(obs.values())))
    if len(chunk) == 0 or num != len(chunk):
        raise TrainingError(
            f"{num} observations and {len(chunk)} chunks demonstrated",
            expected="as many of one as of the other, at least 1",
        )
    if not torch.isfinite(chunk).all():
        raise TrainingError("a demonstrated action is not finite")
    with torch.no_grad():
        parts = [
            policy.perceive({name: value[i : i + PERCEIVED_ROWS] for name, value in obs.items()})
            for i in range(0, num, PERCEIVED_ROWS)
        ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _mean_loss(losses: list[Tensor], step: int, ranks: Ranks) -> float:
    loss = float(ranks.sum(torch.stack(losses)).mean())
    if not math.isfinite(loss):
        raise TrainingError(
            f"behaviour cloning's loss is {loss} at step {step}",
            remedy="lower behaviour_cloning.learning_rate",
        )
    return loss


class _SuccessLimit:
    """Keeps the last weights whose measured success is not above a maximum."""

    def __init__(self, maximum_success: float, measure: Measure | None) -> None:
        self.maximum_success = maximum_success
        self.measure = measure if maximum_success < 1.0 else None
        self._weights: dict[str, Any] | None = None

    def is_exceeded(self, policy: ChunkPolicy) -> bool:
        """Measure, where that is wanted; keep the weights if success is not above the maximum."""
        if self.measure is None:
            return False
        success = self.measure()
        if success > self.maximum_success and self._weights is not None:
            return True
        self._weights = copy.deepcopy(policy.state_dict())
        return success > self.maximum_success

    def restore(self, policy: ChunkPolicy) -> None:
        """Put the kept weights back."""
        if self._weights is not None:
            policy.load_state_dict(self._weights)
