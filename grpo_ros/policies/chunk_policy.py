"""ChunkPolicy: what every policy shares that decides a chunk of actions by one normal draw."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.normal import normal_log_prob

if TYPE_CHECKING:
    from grpo_ros.distributed.sharding import Shards


class ChunkPolicy(nn.Module, abc.ABC):
    """A policy whose sample is one draw from a diagonal normal, given what it perceived.

    What it observes it perceives once (`perceive`); sampling, likelihoods, cloning and the critic
    take what it perceived, however often they come back to it. `mode` and `decide`, which are
    deployed, take the observation itself.

    Implements grpo_ros.policies.base.Policy.

    Attributes:
        num_features: F, of `critic_features`.
        ratio_rounding: see Policy.
        shards: where what learns is in parts, one on each rank of a run.
    """

    shards: Shards | None = None
    ratio_rounding: float = 0.0

    contract: Contract
    noise_shape: tuple[int, ...]
    num_features: int

    def __init__(self, contract: Contract, noise_shape: tuple[int, ...]) -> None:
        """Take the contract that names what is seen and commanded."""
        super().__init__()
        self.contract = contract
        self.noise_shape = noise_shape

    @property
    def chunk_shape(self) -> tuple[int, int]:
        """(K, A)."""
        return self.contract.chunk_size, self.contract.action_size

    def perceive(self, obs: Observation) -> Observation:
        """Return what the policy makes of an observation before it decides, field -> (N, ...).

        It does not depend on what is trained, so it is kept with the sample.
        """
        return obs

    def log_prob(self, obs: Observation, sample: ActionSample) -> Tensor:
        """Return the log-likelihood (N, K) of sampled chunks under the present parameters."""
        mean, std = self.distribution(obs, sample)
        return normal_log_prob(self.sampled_value(sample), mean, std)

    def mode(self, obs: Observation) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1], without noise."""
        first = next(iter(obs.values()))
        zeros = torch.zeros(first.shape[0], *self.chunk_shape, device=first.device)
        return self.decide(obs, zeros)

    def constrain(self) -> None:
        """Project the parameters onto their range; called after every optimiser step."""

    @contextlib.contextmanager
    def cloning(self) -> Iterator[None]:
        """Let what behaviour cloning trains require gradients, and perceive accordingly."""
        yield

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """Hold all parameters on this rank while the policy acts, where they are in shards."""
        return contextlib.nullcontext() if self.shards is None else self.shards.whole()

    def learned(self) -> dict[str, nn.Parameter]:
        """Return what cloning or training changes, by name."""
        return dict(self.named_parameters())

    def units(self) -> list[nn.Module]:
        """Return parts that compute one after the other, if it is worth to shard them."""
        return []

    @abc.abstractmethod
    def fit_statistics(self, obs: Observation) -> None:
        """Take from what was perceived in data what has to be known before anything is learned."""

    @abc.abstractmethod
    def annotate(self, contract: Contract) -> Contract:
        """Return the contract with the statistics of what the policy saw."""

    @abc.abstractmethod
    def critic_features(self, obs: Observation) -> Tensor:
        """Return what a critic judges by, normalised, (N, F)."""

    @abc.abstractmethod
    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Sample chunks; `noise` (N, *noise_shape) float32 standard normal decides the sample."""

    @abc.abstractmethod
    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1] from deployment noise."""

    @abc.abstractmethod
    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, S) and std (broadcastable) of the normal that gave the sample."""

    @abc.abstractmethod
    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return what was drawn from `distribution`, (N, K, S)."""

    @abc.abstractmethod
    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of one step of the chunk, in nats."""

    def cloning_noise(self, num: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return all that is random in the cloning error of `num` chunks, name -> (num, ...)."""
        return {}

    @abc.abstractmethod
    def cloning_error(
        self, obs: Observation, chunk: Tensor, noise: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the behaviour-cloning error of each step of chunks, (B, K).

        Args:
            obs: field -> (B, ...), perceived.
            chunk: (B, K, A) float32, demonstrated.
            noise: of these chunks, as `cloning_noise` gives it.
        """
