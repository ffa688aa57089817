"""FlowPolicy: a small flow-matching head whose samples have a likelihood.

Time t runs 0 -> 1 from noise to data, as in GR00T (openpi's runs the other way). Trained by
regression on x_t = (1 - t) x_0 + t x_1, v = x_1 - x_0; sampled by D Euler steps.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.mlp import make_mlp
from grpo_ros.policies.normal import normal_entropy, normal_log_prob
from grpo_ros.policies.state_policy import StatePolicy

NUM_FREQUENCIES = 4


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """Settings of FlowPolicy."""

    hidden: tuple[int, ...] = typed.setting(
        (192, 192, 192), "Widths of the hidden layers", minimum=1
    )
    num_steps: int = typed.setting(4, "Denoising steps (D)", minimum=1, maximum=100)
    noise_level: float = typed.setting(
        0.35, "Noise level a of the stochastic step", minimum=0.0, maximum=5.0
    )
    schedule: Literal["flow_sde", "constant"] = typed.setting(
        "flow_sde", "sigma(t) = a sqrt((1 - t) / t), or a at every t"
    )
    noisy_steps: tuple[int, ...] = typed.setting(
        (), "Denoising steps that may be stochastic; all if empty", minimum=0
    )
    minimum_std: float = typed.setting(
        0.02, "Least standard deviation of the stochastic step", minimum=1e-4, maximum=2.0
    )

    def __post_init__(self) -> None:
        if any(step >= self.num_steps for step in self.noisy_steps):
            raise ConfigurationError(
                f"'noisy_steps' = {self.noisy_steps}", expected=f"steps below {self.num_steps}"
            )


def sde_step(
    x: Tensor, velocity: Tensor, t: Tensor | float, dt: float, sigma: Tensor | float
) -> tuple[Tensor, Tensor | float]:
    """Return mean and standard deviation of one step of the Flow-SDE.

    The flow dx = v dt and dx = (v + sigma^2 s / 2) dt + sigma dw have the same marginals, where
    the score is s = -x0_hat / (1 - t), x0_hat = x - t v and x1_hat = x + (1 - t) v. So (Flow-GRPO,
    2505.05470; time 0 -> 1 as in pi_RL, 2510.25889, for GR00T):

        mean = x0_hat (1 - t - dt - sigma^2 dt / (2 (1 - t))) + x1_hat (t + dt)
        std  = sigma sqrt(dt)

    With sigma = 0 this is the Euler step x + v dt.

    Args:
        x, velocity: (N, ...). t, sigma: numbers or broadcastable to x, 0 <= t < 1. dt: step.
    """
    noise_estimate = x - t * velocity
    data_estimate = x + (1.0 - t) * velocity
    shrink = sigma * sigma * dt / (2.0 * (1.0 - t))
    mean = noise_estimate * (1.0 - t - dt - shrink) + data_estimate * (t + dt)
    return mean, sigma * math.sqrt(dt)


def noise_schedule(config: FlowConfig) -> Tensor:
    """Return sigma (D,) of each denoising step.

    flow_sde: sigma_k = a sqrt((1 - t_k) / t_k), t_k = k / D, where the divisor t_0 = 0 is replaced
    by t_1 (pi_RL, 2510.25889); constant: sigma_k = a. Raised where std = sigma sqrt(1 / D) would
    fall below minimum_std.
    """
    num_steps = config.num_steps
    times = torch.arange(num_steps, dtype=torch.float64) / num_steps
    if config.schedule == "flow_sde":
        divisor = torch.where(times == 0, torch.tensor(1.0 / num_steps), times)
        sigma = config.noise_level * ((1.0 - times) / divisor).sqrt()
    else:
        sigma = torch.full((num_steps,), config.noise_level, dtype=torch.float64)
    return sigma.clamp(min=config.minimum_std * math.sqrt(num_steps)).float()


class FlowPolicy(StatePolicy):
    """A chunk denoised in D steps, exactly one of them stochastic.

    noise_shape is (3, K, A): [0] the initial noise x_0; [1] the noise of the stochastic step; [2]
    element 0, through the distribution function of its magnitude, picks which step that is, so
    that a sample with opposite noise has the same stochastic step. Given x_0 and
    the step's index the sample is one draw from a normal (pi_RL's two-layer decision process),
    which latents keep: `index` (N,) int64, `before` and `after` (N, K, A).

    `mode` starts from x_0 = 0 and takes no noise. That needs a well-fitted head: cloned on
    pick_place in 1500 steps, it succeeded 84 % from x_0 = 0 and 80 % from random x_0 at a learning
    rate of 3e-3, but 2 % and 43 % at 1e-3 (256 initial states, one seed). Clone it at 3e-3.
    """

    times: Tensor
    sigmas: Tensor
    choices: Tensor
    frequencies: Tensor

    def __init__(self, config: FlowConfig, contract: Contract, generator: torch.Generator) -> None:
        """Build the network with weights drawn from `generator`."""
        chunk_shape = (contract.chunk_size, contract.action_size)
        super().__init__(contract, (3, *chunk_shape))
        self.config = config
        num_values = math.prod(chunk_shape)
        num_inputs = num_values + 2 * NUM_FREQUENCIES + contract.state_size
        self.network = make_mlp(num_inputs, config.hidden, num_values, generator)
        num_steps = config.num_steps
        times = torch.arange(num_steps, dtype=torch.float32) / num_steps
        choices = torch.tensor(config.noisy_steps or tuple(range(num_steps)))
        frequencies = math.pi * 2.0 ** torch.arange(NUM_FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("times", times, persistent=False)
        self.register_buffer("sigmas", noise_schedule(config), persistent=False)
        self.register_buffer("choices", choices, persistent=False)

    def velocity(self, x: Tensor, t: Tensor, features: Tensor) -> Tensor:
        """Return v (N, K, A) at x (N, K, A), t (N,) in [0, 1] and normalised features (N, O)."""
        angles = t.unsqueeze(-1) * self.frequencies
        inputs = torch.cat((x.flatten(1), angles.sin(), angles.cos(), features), dim=-1)
        values: Tensor = self.network(inputs)
        return values.view(-1, *self.chunk_shape)

    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Denoise from noise[:, 0]; the step picked by noise[:, 2] is drawn with noise[:, 1]."""
        features = self.normaliser(self.features(obs))
        x, step_noise, index = noise[:, 0], noise[:, 1], self._pick(noise[:, 2])
        before, after, log_prob = x, x, x[..., 0]
        for k in range(self.config.num_steps):
            is_noisy = (index == k).view(-1, 1, 1)
            v = self.velocity(x, self.times[k].expand(len(x)), features)
            mean, std = sde_step(x, v, self.times[k], self._dt, self.sigmas[k])
            drawn = mean + std * step_noise
            before, after = torch.where(is_noisy, x, before), torch.where(is_noisy, drawn, after)
            std = torch.as_tensor(std)
            log_prob = torch.where(is_noisy[..., 0], normal_log_prob(drawn, mean, std), log_prob)
            x = torch.where(is_noisy, drawn, x + v * self._dt)
        return ActionSample(x, log_prob, {"index": index, "before": before, "after": after})

    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the chunk that the deterministic flow makes of x_0 = noise (N, K, A), clamped."""
        features, x = self.normaliser(self.features(obs)), noise
        for k in range(self.config.num_steps):
            x = x + self.velocity(x, self.times[k].expand(x.shape[0]), features) * self._dt
        return x.clamp(-1.0, 1.0)

    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, A) and std (N, 1, 1) of the stochastic step."""
        index, before = sample.latents["index"], sample.latents["before"]
        features = self.normaliser(self.features(obs))
        v = self.velocity(before, self.times[index], features)
        t, sigma = self.times[index].view(-1, 1, 1), self.sigmas[index].view(-1, 1, 1)
        mean, std = sde_step(before, v, t, self._dt, sigma)
        return mean, torch.as_tensor(std)

    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return what the stochastic step ended in."""
        return sample.latents["after"]

    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of one chunk step's transition, averaged over noisy steps."""
        num_envs = next(iter(obs.values())).shape[0]
        std = self.sigmas[self.choices].unsqueeze(-1) * math.sqrt(self._dt)
        return normal_entropy(std.expand(-1, self.contract.action_size)).mean().expand(num_envs)

    def bc_loss(
        self, obs: Observation, chunk: Tensor, weight: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the flow-matching loss E |v(x_t, t, obs) - (x_1 - x_0)|^2 per component.

        x_0 standard normal, t uniform in [0, 1), x_t = (1 - t) x_0 + t x_1, x_1 = chunk.
        """
        device = chunk.device
        x0 = torch.randn(chunk.shape, generator=generator).to(device)
        t = torch.rand(len(chunk), generator=generator).to(device)
        at = t.view(-1, 1, 1)
        x = (1.0 - at) * x0 + at * chunk
        v = self.velocity(x, t, self.normaliser(self.features(obs)))
        error = (v - (chunk - x0)).square().mean(dim=-1)
        return (error * weight).sum() / weight.sum().clamp(min=1.0)

    @property
    def _dt(self) -> float:
        return 1.0 / self.config.num_steps

    def _pick(self, noise: Tensor) -> Tensor:
        """Return the index (N,) of the stochastic step, uniform over the allowed ones."""
        uniform = 2.0 * torch.special.ndtr(noise.flatten(1)[:, 0].abs()) - 1.0
        position = (uniform * len(self.choices)).long().clamp(max=len(self.choices) - 1)
        return self.choices[position]
