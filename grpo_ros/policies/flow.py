"""FlowPolicy: a small flow-matching head whose samples have a likelihood.

Time t runs 0 -> 1 from noise to data, as in GR00T (openpi's runs the other way). Trained by
regression on x_t = (1 - t) x_0 + t x_1, v = x_1 - x_0; sampled by D steps of a Denoiser.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.denoising import Denoiser, DenoisingConfig, Velocity
from grpo_ros.policies.mlp import make_mlp
from grpo_ros.policies.noise_network import NoiseNetwork
from grpo_ros.policies.state_policy import StatePolicy

NUM_FREQUENCIES = 4


@dataclasses.dataclass(frozen=True)
class FlowConfig(DenoisingConfig):
    """Settings of FlowPolicy: its network's, and how it is denoised."""

    hidden: tuple[int, ...] = typed.setting(
        (192, 192, 192), "Widths of the hidden layers", minimum=1
    )


class FlowPolicy(StatePolicy):
    """A chunk denoised in D steps, one of them stochastic, or all where the likelihood is joint.

    noise_shape is (2 + S, K, A), S = 1 or D: [0] the initial noise x_0; [1:-1] the noise of the S
    drawn steps; [-1] element 0, through the distribution function of its magnitude, picks which
    step is the stochastic one, so that a sample with opposite noise has the same (unused where
    all are). Given x_0 and the step's index the sample is one draw from a normal; `Denoiser` says
    which, and what latents keep.

    Where noise is learned, a small network of the normalised features gives the standard
    deviation. The policy gradient trains it; behaviour cloning and the deployed chunk, which takes
    no noise beside x_0, know nothing of it.

    `mode` starts from x_0 = 0 and takes no noise. That needs a well-fitted head: cloned on
    pick_place in 1500 steps, it succeeded 84 % from x_0 = 0 and 80 % from random x_0 at a learning
    rate of 3e-3, but 2 % and 43 % at 1e-3 (256 initial states, one seed). Clone it at 3e-3.
    """

    frequencies: Tensor

    def __init__(self, config: FlowConfig, contract: Contract, generator: torch.Generator) -> None:
        """Build the networks with weights drawn from `generator`."""
        chunk_shape = (contract.chunk_size, contract.action_size)
        denoiser = Denoiser(config, chunk_shape, chunk_shape)
        super().__init__(contract, (2 + denoiser.num_draws, *chunk_shape))
        self.config, self.denoiser = config, denoiser
        num_values = math.prod(chunk_shape)
        num_inputs = num_values + 2 * NUM_FREQUENCIES + contract.state_size
        self.network = make_mlp(num_inputs, config.hidden, num_values, generator)
        self.noise_network: NoiseNetwork | None = None
        if config.noise == "learned":
            bounds = config.minimum_std, config.maximum_std
            self.noise_network = NoiseNetwork(contract.state_size, chunk_shape, bounds, generator)
        frequencies = math.pi * 2.0 ** torch.arange(NUM_FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def velocity(self, x: Tensor, t: Tensor, features: Tensor) -> Tensor:
        """Return v (N, K, A) at x (N, K, A), t (N,) in [0, 1] and normalised features (N, O)."""
        angles = t.unsqueeze(-1) * self.frequencies
        inputs = torch.cat((x.flatten(1), angles.sin(), angles.cos(), features), dim=-1)
        values: Tensor = self.network(inputs)
        return values.view(-1, *self.chunk_shape)

    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Denoise from noise[:, 0], drawing with noise[:, 1:-1] where noise[:, -1] says."""
        features = self.normaliser(self.features(obs))
        x0, draws, pick = noise[:, 0], noise[:, 1:-1], noise[:, -1].flatten(1)[:, 0]
        velocity, std = self._velocity_of(features), self._std(features)
        return ActionSample(*self.denoiser.sample(velocity, x0, draws, pick, std))

    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the chunk that the deterministic flow makes of x_0 = noise (N, K, A), clamped."""
        features = self.normaliser(self.features(obs))
        return self.denoiser.decide(self._velocity_of(features), noise).clamp(-1.0, 1.0)

    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, A), or (N, K, D * A) of all steps, and std of what was drawn."""
        features = self.normaliser(self.features(obs))
        velocity, std = self._velocity_of(features), self._std(features)
        return self.denoiser.distribution(velocity, sample.latents, std)

    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return what the stochastic step ended in, or all steps side by side."""
        return self.denoiser.sampled_value(sample.latents)

    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of what is drawn of one chunk step, averaged over the chunk."""
        num_envs = next(iter(obs.values())).shape[0]
        if self.noise_network is None:
            return self.denoiser.entropy().expand(num_envs)
        std = self._std(self.normaliser(self.features(obs)))
        return self.denoiser.entropy(std).mean(dim=-1)

    def cloning_noise(self, num: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return x_0 (num, K, A), standard normal, and t (num,), uniform in [0, 1)."""
        x0 = torch.randn((num, *self.chunk_shape), generator=generator)
        return {"x0": x0, "t": torch.rand(num, generator=generator)}

    def cloning_error(
        self, obs: Observation, chunk: Tensor, noise: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the flow-matching error |v(x_t, t, obs) - (x_1 - x_0)|^2 per component, (B, K).

        x_t = (1 - t) x_0 + t x_1, x_1 = chunk.
        """
        x0, t = noise["x0"].to(chunk.device), noise["t"].to(chunk.device)
        at = t.view(-1, 1, 1)
        x = (1.0 - at) * x0 + at * chunk
        v = self.velocity(x, t, self.normaliser(self.features(obs)))
        return (v - (chunk - x0)).square().mean(dim=-1)

    def _velocity_of(self, features: Tensor) -> Velocity:
        return lambda x, t: self.velocity(x, t, features)

    def _std(self, features: Tensor) -> Tensor | None:
        """Return the learned standard deviation (N, K, A), where there is one."""
        return None if self.noise_network is None else self.noise_network(features)
