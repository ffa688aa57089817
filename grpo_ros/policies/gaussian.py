"""GaussianPolicy: a multi-layer perceptron gives the mean, the spread is learned per action."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.mlp import Activation, make_mlp
from grpo_ros.policies.normal import normal_entropy, normal_log_prob
from grpo_ros.policies.state_policy import StatePolicy


@dataclasses.dataclass(frozen=True)
class GaussianConfig:
    """Settings of GaussianPolicy."""

    hidden: tuple[int, ...] = typed.setting((128, 128), "Widths of the hidden layers", minimum=1)
    activation: Activation = typed.setting("silu", "What follows each hidden layer")
    initial_std: float = typed.setting(
        0.2, "Standard deviation of actions at the start", minimum=1e-3, maximum=2.0
    )
    minimum_std: float = typed.setting(
        0.02, "Standard deviation never learned below this", minimum=1e-3, maximum=2.0
    )
    maximum_std: float = typed.setting(
        1.0, "Standard deviation never learned above this", minimum=1e-3, maximum=10.0
    )


class GaussianPolicy(StatePolicy):
    """pi(chunk | obs) = prod_k N(chunk_k; mean_k(obs), diag(std^2)), std (A,) independent of obs.

    noise_shape is (K, A): chunk = mean + std * noise.
    """

    def __init__(
        self, config: GaussianConfig, contract: Contract, generator: torch.Generator
    ) -> None:
        """Build the network with weights drawn from `generator`."""
        chunk_shape = (contract.chunk_size, contract.action_size)
        super().__init__(contract, chunk_shape)
        self.config = config
        self.network = make_mlp(
            contract.state_size,
            config.hidden,
            math.prod(chunk_shape),
            generator,
            output_gain=0.1,
            activation=config.activation,
        )
        self.log_std = nn.Parameter(
            torch.full((contract.action_size,), math.log(config.initial_std))
        )

    def mean(self, obs_features: Tensor) -> Tensor:
        """Return the mean chunk (N, K, A) from raw features (N, O)."""
        values: Tensor = self.network(self.normaliser(obs_features))
        return values.view(-1, *self.chunk_shape)

    def std(self) -> Tensor:
        """Return the standard deviation (A,) of each action component."""
        return self.log_std.exp()

    @torch.no_grad()
    def constrain(self) -> None:
        """Hold the standard deviation to [minimum_std, maximum_std]."""
        self.log_std.clamp_(math.log(self.config.minimum_std), math.log(self.config.maximum_std))

    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Sample chunk = mean + std * noise; `noise` (N, K, A)."""
        mean, std = self.mean(self.features(obs)), self.std()
        chunk = mean + std * noise
        return ActionSample(chunk, normal_log_prob(chunk, mean, std))

    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the clamped mean; the deployed action takes no noise."""
        return self.mean(self.features(obs)).clamp(-1.0, 1.0)

    def mode(self, obs: Observation) -> Tensor:
        """Return the mean chunk (N, K, A), clamped to [-1, 1]."""
        return self.mean(self.features(obs)).clamp(-1.0, 1.0)

    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, A) and std (A,)."""
        return self.mean(self.features(obs)), self.std()

    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return the chunk itself."""
        return sample.chunk

    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of one step, the same for every observation."""
        num_envs = next(iter(obs.values())).shape[0]
        return normal_entropy(self.std()).expand(num_envs)

    def cloning_error(
        self, obs: Observation, chunk: Tensor, noise: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the squared error of the mean per component, (B, K); std is untouched."""
        return (self.mean(self.features(obs)) - chunk).square().mean(dim=-1)
