"""The Policy protocol: what decides, from observations and noise drawn beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract

Observation = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class ActionSample:
    """A sampled chunk and what is needed to compute its likelihood again.

    Attributes:
        chunk: (*B, K, A) float32, before clipping to the action range.
        log_prob: (*B, K) float32, log-likelihood of each step of the chunk when it was sampled.
        latents: name -> (*B, ...), e.g. the denoising transition of a flow head.
    """

    chunk: Tensor
    log_prob: Tensor
    latents: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)

    def rows(self, index: Tensor) -> ActionSample:
        """Return the samples of the given leading rows."""
        latents = {name: latent[index] for name, latent in self.latents.items()}
        return ActionSample(self.chunk[index], self.log_prob[index], latents)

    def flatten(self) -> ActionSample:
        """Merge the two leading dimensions (environment, decision) into one."""
        latents = {name: latent.flatten(0, 1) for name, latent in self.latents.items()}
        return ActionSample(self.chunk.flatten(0, 1), self.log_prob.flatten(0, 1), latents)


def stack_samples(samples: list[ActionSample]) -> ActionSample:
    """Stack T samples (N, ...) into one with leading dimensions (N, T)."""
    latents = {
        name: torch.stack([sample.latents[name] for sample in samples], dim=1)
        for name in samples[0].latents
    }
    return ActionSample(
        torch.stack([sample.chunk for sample in samples], dim=1),
        torch.stack([sample.log_prob for sample in samples], dim=1),
        latents,
    )


class Policy(Protocol):
    """Decides a chunk of actions. Every implementation is a torch.nn.Module.

    A sample is one draw from a diagonal normal (the chunk itself for a Gaussian head, one
    denoising transition for a flow head, or all of them given what was before each), so its
    likelihood, and its divergence from another policy's, are known in closed form. S is A, or
    D * A where all D transitions stand side by side.

    Attributes:
        noise_shape: of the noise that decides one sample.
        ratio_rounding: how far a likelihood ratio may be off by rounding alone, where the policy
            computes in a lower precision than float32; else 0.
    """

    contract: Contract
    noise_shape: tuple[int, ...]
    ratio_rounding: float

    def perceive(self, obs: Observation) -> Observation:
        """Return what the policy makes of it; all but `mode` and `decide` take that."""

    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Sample chunks; `noise` (N, *noise_shape) float32 standard normal decides the sample."""

    def log_prob(self, obs: Observation, sample: ActionSample) -> Tensor:
        """Return the log-likelihood (N, K) of sampled chunks under the present parameters."""

    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, S) and std (broadcastable) of the normal that the sample is from."""

    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return what was drawn from `distribution`, (N, K, S)."""

    def mode(self, obs: Observation) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1], without noise."""

    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1] where a contract asks for noise."""

    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of one step of the chunk, in nats (of what is drawn of it)."""

    def constrain(self) -> None:
        """Project the parameters onto their range; called after every optimiser step."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield names and parameters, as torch.nn.Module does."""

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and buffers, as torch.nn.Module does."""


@runtime_checkable
class PolicyInParts(Policy, Protocol):
    """A policy that can be deployed as two graphs: what it sees, and what it decides by that.

    Attributes:
        seen_names: the observation's fields that `features` takes; `decide_on` takes the others.
    """

    @property
    def seen_names(self) -> tuple[str, ...]:
        """Return the fields that `features` takes."""

    def in_float32(self) -> PolicyInParts:
        """Return the policy in float32 on the CPU: itself if it is, else a copy."""

    def features(self, obs: Observation) -> Tensor:
        """Return what is made of the seen fields, (N, ...) float32."""

    def decide_on(self, features: Tensor, obs: Observation, noise: Tensor | None) -> Tensor:
        """Return the chunk of `decide`, or of `mode` without noise, given the features."""
