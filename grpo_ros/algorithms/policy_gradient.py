"""PolicyGradient: clipped-surrogate epochs over a batch, shared by GRPO and PPO."""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from grpo_ros import typed
from grpo_ros.algorithms import losses
from grpo_ros.algorithms.adam_state import adam_state, load_adam_state
from grpo_ros.algorithms.adaptive_rate import AdaptiveRate
from grpo_ros.algorithms.batch import Batch, minibatches, own_rows
from grpo_ros.algorithms.gradients import clip_gradients
from grpo_ros.algorithms.histograms import ADVANTAGE_EDGES, Histogram, edge_histogram
from grpo_ros.algorithms.ratio_check import check_first_ratio
from grpo_ros.algorithms.tally import Tally
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.distributed.summed_gradients import SummedGradients
from grpo_ros.distributed.tensors import placed_like
from grpo_ros.errors import CheckpointError, ConfigurationError
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.normal import normal_kl

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PolicyGradientConfig:
    """Settings of the clipped-surrogate update, and of what is rewarded."""

    objectives: tuple[str, ...] = typed.setting(
        ("outcome",), "What is rewarded: outcome, score, or names of reward terms"
    )
    objective_weights: tuple[float, ...] = typed.setting((1.0,), "Weight of each objective")
    clip_low: float = typed.setting(0.2, "Ratios clip at 1 minus this", minimum=0.0, maximum=1.0)
    clip_high: float = typed.setting(0.2, "Ratios clip at 1 plus this", minimum=0.0, maximum=10.0)
    ratio: losses.RatioReduction = typed.setting(
        "step", "Likelihood ratio per step, per chunk, or the mean over a chunk's steps"
    )
    num_epochs: int = typed.setting(8, "Passes over each rollout", minimum=1, maximum=100)
    minibatch_size: int = typed.setting(1024, "Decisions with weight per gradient step", minimum=1)
    learning_rate: float = typed.setting(
        1e-3, "Adam's first learning rate", minimum=0.0, maximum=1.0
    )
    minimum_learning_rate: float = typed.setting(
        1e-5, "Adaptation goes no lower", minimum=0.0, maximum=1.0
    )
    maximum_learning_rate: float = typed.setting(
        3e-3, "Adaptation goes no higher", minimum=0.0, maximum=1.0
    )
    warmup_steps: int = typed.setting(
        20, "Gradient steps over which the learning rate first rises from 0", minimum=0
    )
    kl_target: float = typed.setting(
        0.4,
        "Wanted divergence of a chunk per update; the learning rate follows it; 0 = fixed rate",
        unit="nats",
        minimum=0.0,
    )
    maximum_grad_norm: float = typed.setting(1.0, "Gradients are scaled to this", minimum=0.0)
    entropy_coefficient: float = typed.setting(0.0, "Weight of the entropy bonus", minimum=0.0)
    reference_kl_coefficient: float = typed.setting(
        0.0, "Weight of the divergence from the first policy; 0 keeps no copy of it", minimum=0.0
    )
    ratio_tolerance: float = typed.setting(
        1e-4, "Largest |ratio - 1| before the first step of an update", minimum=0.0
    )

    def __post_init__(self) -> None:
        if len(self.objectives) != len(self.objective_weights) or not self.objectives:
            raise ConfigurationError(
                f"'objective_weights' = {self.objective_weights}",
                expected=f"one weight for each of {list(self.objectives)}",
            )
        low, high = self.minimum_learning_rate, self.maximum_learning_rate
        if self.kl_target > 0.0 and not low <= self.learning_rate <= high:
            raise ConfigurationError(
                f"'learning_rate' = {self.learning_rate}",
                expected=f"minimum_learning_rate to maximum_learning_rate, [{low}, {high}]",
            )


class PolicyGradient:
    """Adam on the clipped surrogate, with a learning rate that follows the divergence.

    loss = sum_{b,k} w_bk [L_clip - c_H H + c_KL KL(pi || reference)] / sum_{b,k} w_bk: every
    weighted executed step counts the same, however long its episode was (DAPO, 2503.14476). The
    divisor is the same for all minibatches.

    Several ranks with as many rows each do what one does with all rows: minibatches are drawn
    from all rows, each rank computes with those that are its own, and sums are over ranks.
    """

    def __init__(
        self, config: PolicyGradientConfig, policy: ChunkPolicy, ranks: Ranks = ONE_RANK
    ) -> None:
        """Take the policy whose parameters are changed in place, the same on all ranks."""
        self.config, self.policy, self.ranks = config, policy, ranks
        self.reference: ChunkPolicy | None = None
        if config.reference_kl_coefficient > 0.0:
            self.reference = copy.deepcopy(policy)
        for each in (policy, self.reference):
            if each is not None:
                ranks.shard(each)
        self.parameters: list[tuple[str, nn.Parameter]] = [
            (name, p) for name, p in policy.named_parameters() if p.requires_grad
        ]
        self.optimizer = torch.optim.Adam(
            [p for _, p in self.parameters], lr=config.learning_rate, fused=True
        )
        self.rate = AdaptiveRate(
            config.learning_rate,
            config.kl_target,
            config.minimum_learning_rate,
            config.maximum_learning_rate,
        )
        self.num_gradient_steps = 0
        self.histograms: dict[str, Histogram] = {}
        """Of the last update."""
        self.gradients = SummedGradients(policy, ranks)

    def improve(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Run all epochs over all ranks' batches; returns metrics by name.

        A batch without weight changes nothing. A minibatch whose loss or gradient is not finite,
        or which is already too far from the old policy, takes no step and is counted.

        Raises:
            TrainingError: the old policy's likelihoods cannot be reproduced before the first step,
                or no minibatch had a finite gradient.
        """
        span = self.ranks.span(len(batch))
        has_weight = self.ranks.gather((batch.weight != 0).any(dim=1))
        total = float(self.ranks.sum(batch.weight.sum()))
        self.histograms = {"advantage_histogram": self._advantages_of(batch)}
        tally, rate = Tally(), self.rate.rate
        num_epochs = self.config.num_epochs if total > 0.0 else 1
        for epoch in range(num_epochs):
            parts = minibatches(has_weight, self.config.minibatch_size, generator)
            tally.begin_epoch(is_last=epoch == num_epochs - 1)
            for index in parts:
                own = own_rows(index, span)
                rows = batch.rows(own) if len(own) else batch.filler()
                self._minibatch(rows, total / len(parts), tally)
        if self.policy.shards is not None:
            self.policy.shards.let_go()
        if total > 0.0:
            tally.raise_if_all_non_finite()
            self.rate.adapt(tally.value("approx_kl"))
        return {"learning_rate": rate, **tally.metrics()}

    def _advantages_of(self, batch: Batch) -> Histogram:
        """Return how the advantages of all ranks' decisions with weight are distributed."""
        counted = batch.advantages[(batch.weight != 0).any(dim=1), 0]
        return edge_histogram(self.ranks.gather(counted), ADVANTAGE_EDGES)

    @torch.no_grad()
    def start(self) -> None:
        """Take the policy as it is now, once it is cloned, for the reference."""
        if self.reference is not None:
            own = self.policy.state_dict()
            for name, value in self.reference.state_dict().items():
                value.copy_(own[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return optimiser, learning rate, counters and reference as flat tensors."""
        state = {
            "learning_rate": torch.tensor(self.rate.rate, dtype=torch.float64),
            "num_gradient_steps": torch.tensor(self.num_gradient_steps),
        }
        moments = adam_state(self.optimizer, self.parameters)
        state.update({f"adam/{key}": value for key, value in moments.items()})
        if self.reference is not None:
            reference = self.reference.state_dict()
            state.update({f"reference/{key}": v.detach().clone() for key, v in reference.items()})
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        remaining = dict(state)
        try:
            self.rate.rate = float(remaining.pop("learning_rate"))
            self.num_gradient_steps = int(remaining.pop("num_gradient_steps"))
        except KeyError as missing:
            raise CheckpointError(f"algorithm state lacks {missing}") from None
        load_adam_state(self.optimizer, self.parameters, take(remaining, "adam/"))
        reference = take(remaining, "reference/")
        known = self.reference.state_dict() if self.reference is not None else {}
        if reference.keys() != known.keys() or remaining:
            odd = sorted([*(reference.keys() ^ known.keys()), *remaining])
            raise CheckpointError(
                f"algorithm state differs in {odd}",
                remedy="resume with the configuration that the checkpoint was made with",
            )
        for name, value in known.items():
            value.copy_(placed_like(reference[name], value))

    def _minibatch(self, batch: Batch, divisor: float, tally: Tally) -> None:
        """Take one gradient step, unless the minibatch must be skipped."""
        terms, old = self.gradients.compute(lambda: self._terms(batch)), batch.sample.log_prob
        log_prob = terms[0]
        step_ratios = losses.log_ratio(log_prob, old, batch.fresh_steps, "step").detach()
        if tally.ratio_error is None:
            tolerance = self.config.ratio_tolerance
            tally.ratio_error = check_first_ratio(self.policy, step_ratios, tolerance, self.ranks)
        if divisor == 0.0:
            return
        kl = self._kl_per_chunk(step_ratios, batch.fresh_steps)
        if math.isfinite(kl):
            tally.add({"approx_kl": kl})
        if self.rate.is_too_far(kl):
            tally.skipped_too_far += 1
            return
        ratios = losses.log_ratio(log_prob, old, batch.executed, self.config.ratio)
        loss, divergence = self._loss(ratios, terms[1:], batch, divisor)
        whole_loss = float(self.ranks.sum(loss.detach()))
        grad_norm = self._gradient(loss) if math.isfinite(whole_loss) else math.nan
        if not math.isfinite(grad_norm):
            tally.skipped_non_finite += 1
            logger.warning("minibatch skipped: its loss or gradient is not finite")
            return
        self._step()
        tally.gradient_steps += 1
        tally.add({"policy_loss": whole_loss, "grad_norm": grad_norm})
        if divergence is not None:
            tally.add({"reference_kl": float(self.ranks.sum(divergence.detach()))})
        if tally.is_last_epoch:
            tally.add(self._statistics(ratios.detach(), batch))

    def _gradient(self, loss: Tensor) -> float:
        """Put the clipped gradient in place; returns its norm before, NaN if not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        self.gradients.backward(loss)
        parameters = [p for _, p in self.parameters]
        return clip_gradients(parameters, self.config.maximum_grad_norm, self.ranks)

    def _step(self) -> None:
        """Take one step; Adam's first ones are full-sized whatever the gradient: they warm up."""
        self.num_gradient_steps += 1
        warmth = self.num_gradient_steps / max(1, self.config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate.rate * min(1.0, warmth)
        self.optimizer.step()
        self.policy.constrain()

    def _terms(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return log-likelihoods, then the entropy and the distribution where they count."""
        terms = [self.policy.log_prob(batch.obs, batch.sample)]
        if self.config.entropy_coefficient > 0.0:
            terms.append(self.policy.entropy(batch.obs))
        if self.reference is not None:
            terms += self.policy.distribution(batch.obs, batch.sample)
        return tuple(terms)

    def _loss(
        self, ratios: Tensor, terms: tuple[Tensor, ...], batch: Batch, divisor: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss, and the mean divergence from the reference if there is one."""
        config, remaining = self.config, list(terms)
        values = losses.clipped_surrogate(
            ratios, batch.advantages, config.clip_low, config.clip_high
        )
        if config.entropy_coefficient > 0.0:
            values = values - config.entropy_coefficient * remaining.pop(0).unsqueeze(-1)
        if self.reference is not None:
            mean, std = remaining
            with torch.no_grad():
                reference = self._reference_of(self.reference, batch)
            divergence = normal_kl(mean, std, *reference)
            values = values + config.reference_kl_coefficient * divergence
        loss = losses.weighted_sum(values, batch.weight) / divisor
        if self.reference is None:
            return loss, None
        return loss, losses.weighted_sum(divergence, batch.weight) / divisor

    def _reference_of(self, reference: ChunkPolicy, batch: Batch) -> tuple[Tensor, Tensor]:
        if reference.shards is None:
            return reference.distribution(batch.obs, batch.sample)
        return reference.shards.compute(lambda: reference.distribution(batch.obs, batch.sample))

    @torch.no_grad()
    def _statistics(self, ratios: Tensor, batch: Batch) -> dict[str, float]:
        weight, advantages = batch.weight, batch.advantages
        low = losses.clipped_low(ratios, advantages, self.config.clip_low)
        high = losses.clipped_high(ratios, advantages, self.config.clip_high)
        sums = torch.stack([(low * weight).sum(), (high * weight).sum(), weight.sum()])
        num_low, num_high, total = self.ranks.sum(sums)
        total = total.clamp(min=1e-12)
        lowest, highest = torch.aminmax(ratios)
        opposite, highest = self.ranks.maximum(torch.stack([-lowest, highest]))
        values = {
            "clip_fraction_low": num_low / total,
            "clip_fraction_high": num_high / total,
            "ratio_min": (-opposite).exp(),
            "ratio_max": highest.exp(),
            "effective_sample_size": losses.effective_sample_fraction(ratios, weight, self.ranks),
        }
        # One transfer for all of them: each costs as much as a layer of a small network.
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))

    def _kl_per_chunk(self, step_ratios: Tensor, executed: Tensor) -> float:
        """Return the mean over executed chunks of the sum of their steps' k3 estimates (nats)."""
        num_chunks = executed.any(dim=1).sum()
        sums = torch.stack([losses.approximate_kl(step_ratios).sum(), num_chunks.float()])
        total, num = self.ranks.sum(sums)
        return float(total / num.clamp(min=1))


def take(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove and return the entries whose names start with `prefix`, without it."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state.pop(name) for name in names}
