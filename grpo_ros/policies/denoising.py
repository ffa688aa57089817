"""Denoiser: how a flow-matching head's chunk is drawn, and how likely the draw was.

Time t runs 0 -> 1 from noise to data, as in GR00T (openpi's runs the other way). Any head that
gives a velocity can use it: it knows no network and has no parameters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.normal import normal_entropy, normal_log_prob

Velocity = Callable[[Tensor, Tensor], Tensor]
"""v (N, H, C) at x (N, H, C) and t (N,), in the type of x."""


@dataclasses.dataclass(frozen=True)
class DenoisingConfig:
    """Settings of a Denoiser."""

    num_steps: int = typed.setting(4, "Denoising steps (D)", minimum=1, maximum=100)
    likelihood: Literal["transition", "joint"] = typed.setting(
        "transition", "What is drawn and has a likelihood: one step of each chunk, or every step"
    )
    noise: Literal["fixed", "learned"] = typed.setting(
        "fixed", "Standard deviation: by noise_level and schedule, or of a network (Flow-Noise)"
    )
    noise_level: float = typed.setting(
        0.35, "Noise level a of a stochastic step", minimum=0.0, maximum=5.0
    )
    schedule: Literal["flow_sde", "constant"] = typed.setting(
        "flow_sde", "sigma(t) = a sqrt((1 - t) / t), or a at every t"
    )
    noisy_steps: tuple[int, ...] = typed.setting(
        (),
        "Steps that a transition may be; all if empty, and all in a joint likelihood",
        minimum=0,
    )
    minimum_std: float = typed.setting(
        0.02, "Least standard deviation of a stochastic step", minimum=1e-4, maximum=2.0
    )
    maximum_std: float = typed.setting(
        0.16, "Greatest standard deviation of learned noise", minimum=1e-4, maximum=2.0
    )

    def __post_init__(self) -> None:
        if any(step >= self.num_steps for step in self.noisy_steps):
            raise ConfigurationError(
                f"'noisy_steps' = {self.noisy_steps}", expected=f"steps below {self.num_steps}"
            )
        if self.noise == "learned" and self.minimum_std >= self.maximum_std:
            raise ConfigurationError(
                f"'maximum_std' = {self.maximum_std}",
                expected=f"above minimum_std = {self.minimum_std} where noise is learned",
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


def noise_schedule(config: DenoisingConfig) -> Tensor:
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


class _Step(NamedTuple):
    """A step as it was drawn: x (N, H, C) before it; (N, K, A) what was drawn, and from what."""

    before: Tensor
    drawn: Tensor
    mean: Tensor
    std: Tensor


class Denoiser(nn.Module):
    """D steps from noise x_0 (N, H, C) to data x_1, in which the block x[:, :K, :A] is drawn.

    A head may predict more than is executed (a horizon H >= K) and command more than the robot has
    (components C >= A). Only what is executed takes noise and has a likelihood; every other entry
    of x follows the flow x + v dt in every step, the stochastic one too, so that the likelihood of
    the drawn transition is exact. Noise elsewhere would have no likelihood, yet later steps would
    carry it into the block: outcomes would differ by draws that the ratio leaves out, and the
    gradient would lack their share. The marginals allow it: in the Flow-SDE of `sde_step` sigma
    may be any diagonal matrix that does not depend on x, and a zero leaves its entry to the flow.

    likelihood "transition": one step, uniform among noisy_steps, is drawn and the others are
    deterministic (pi_RL's two-layer decision process, 2510.25889; MixGRPO, 2507.21802):

        log p = log N(x_{k+1}; mean_k(x_k), std_k^2)

    over the block. "joint": every step is drawn (DPPO, 2409.00588; ReinFlow, 2505.22094), and

        log p = sum_k log N(x_{k+1}; mean_k(x_k), std_k^2)

    x_0 has no part in either, as no parameter decides it. In both, x before a drawn step is taken
    as recorded: deterministic steps and entries count as the environment's, and no gradient flows
    through them.

    noise "fixed": mean_k and std_k are the Flow-SDE's. "learned": mean_k = x_k + v dt, and std_k
    is given, the same in every step (ReinFlow; Flow-Noise of pi_RL); it widens the marginals.

    Mean, std and the drawn value have the shape (N, K, S): S = A for a transition, and S = D * A
    for all of them, step after step in the last axis. So the sum over the last axis is the
    log-likelihood of one executed step.
    """

    times: Tensor
    sigmas: Tensor
    choices: Tensor

    def __init__(
        self, config: DenoisingConfig, shape: tuple[int, int], block: tuple[int, int]
    ) -> None:
        """Prepare the steps.

        Args:
            config: settings.
            shape: (H, C) of x.
            block: (K, A), what of x is drawn, from its first entries on.

        Raises:
            ConfigurationError: the block is empty or does not fit in the shape.
        """
        super().__init__()
        if any(not 0 < part <= whole for part, whole in zip(block, shape, strict=True)):
            raise ConfigurationError(
                f"a block of {block} is drawn of x", expected=f"(1, 1) to its shape {shape}"
            )
        self.config, self.shape, self.block = config, shape, block
        num_steps = config.num_steps
        times = torch.arange(num_steps, dtype=torch.float32) / num_steps
        every = config.likelihood == "joint" or not config.noisy_steps
        choices = torch.tensor(tuple(range(num_steps)) if every else config.noisy_steps)
        self.register_buffer("times", times, persistent=False)
        self.register_buffer("sigmas", noise_schedule(config), persistent=False)
        self.register_buffer("choices", choices, persistent=False)

    @property
    def num_draws(self) -> int:
        """Steps that are drawn: 1 of a transition, all of a joint likelihood."""
        return self.config.num_steps if self._is_joint else 1

    def sample(
        self,
        velocity: Velocity,
        x0: Tensor,
        draws: Tensor,
        pick: Tensor,
        std: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Denoise x0; its block is drawn in one step, or in every step.

        Args:
            velocity: v of x (N, H, C) and t (N,).
            x0: (N, H, C), standard normal.
            draws: (N, num_draws, K, A), standard normal; x_{k+1} = mean_k + std_k draw.
            pick: (N,), standard normal. Through the distribution function of its magnitude it
                picks the stochastic step, so that opposite noise has the same one; unused where
                every step is.
            std: (N, K, A) where noise is learned.

        Returns:
            x (N, H, C) at t = 1; the log-likelihood (N, K); latents, without gradient. Of a
            transition: `index` (N,) int64 of the drawn step, `before` (N, H, C) x before it,
            `after` (N, K, A) its block after it. Of a joint likelihood: `before` (N, D, H, C) and
            `after` (N, D, K, A) of every step.
        """
        index = None if self._is_joint else self._picked(pick)
        x, steps = x0, list[_Step]()
        for k in range(self.config.num_steps):
            v = velocity(x, self.times[k].expand(len(x)))
            mean, scale = self._transition(x, v, self.times[k], self.sigmas[k], std)
            drawn = mean + scale * draws[:, k if index is None else 0]
            steps.append(_Step(x, drawn, mean, scale))
            x = x + v * self._dt
            is_drawn = None if index is None else (index == k).view(-1, 1, 1)
            block = self._block(x)
            block.copy_(drawn if is_drawn is None else torch.where(is_drawn, drawn, block))
        if index is None:
            log_prob, latents = self._every_step(steps)
        else:
            log_prob, latents = self._one_step(steps, index)
        return x, log_prob, {name: latent.detach() for name, latent in latents.items()}

    def decide(self, velocity: Velocity, x0: Tensor) -> Tensor:
        """Return x (N, H, C) at t = 1 by Euler steps x + v dt of the flow from x0 (N, H, C)."""
        x = x0
        for k in range(self.config.num_steps):
            x = x + velocity(x, self.times[k].expand(x.shape[0])) * self._dt
        return x

    def distribution(
        self, velocity: Velocity, latents: Mapping[str, Tensor], std: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, S) and std (broadcastable) of the normal that the sample is from.

        Of a joint likelihood they are those of each step given x before it. By the chain rule the
        divergence of two chains is the mean, over samples of the first, of that of these normals.

        Args:
            velocity, std: as in `sample`, of the parameters in question.
            latents: what `sample` recorded.
        """
        before = latents["before"]
        if not self._is_joint:
            index = latents["index"]
            t, sigma = self.times[index], self.sigmas[index].view(-1, 1, 1)
            v = velocity(before, t)
            return self._transition(before, v, t.view(-1, 1, 1), sigma, std)
        means, scales = [], []
        for k in range(self.config.num_steps):
            x, t = before[:, k], self.times[k]
            v = velocity(x, t.expand(len(x)))
            mean, scale = self._transition(x, v, t, self.sigmas[k], std)
            means.append(mean)
            scales.append(scale.expand_as(mean))
        return torch.cat(means, dim=-1), torch.cat(scales, dim=-1)

    def sampled_value(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Return what was drawn from `distribution`, (N, K, S)."""
        after = latents["after"]
        return after.transpose(1, 2).flatten(2) if self._is_joint else after

    def entropy(self, std: Tensor | None = None) -> Tensor:
        """Return the entropy of what is drawn in one executed step, in nats.

        H = sum_a [log std_a + (1 + log 2 pi) / 2], averaged over noisy_steps for a transition and
        added up over all of them for a joint likelihood (chain rule).

        Args:
            std: (N, K, A) where noise is learned.

        Returns:
            (N, K) where noise is learned, else ().
        """
        if self.config.noise == "learned":
            return normal_entropy(self._given(std)) * self.num_draws
        scale = self.sigmas[self.choices].unsqueeze(-1) * math.sqrt(self._dt)
        entropy = normal_entropy(scale.expand(-1, self.block[1]))
        return entropy.sum() if self._is_joint else entropy.mean()

    @property
    def _dt(self) -> float:
        return 1.0 / self.config.num_steps

    @property
    def _is_joint(self) -> bool:
        return self.config.likelihood == "joint"

    def _block(self, x: Tensor) -> Tensor:
        """Return the drawn part (N, K, A) of x (N, H, C), a view."""
        num_executed, num_components = self.block
        return x[:, :num_executed, :num_components]

    def _given(self, std: Tensor | None) -> Tensor:
        if std is None:
            raise ConfigurationError(
                "'noise' is 'learned' and no standard deviation is given",
                expected=f"std of shape (N, {self.block[0]}, {self.block[1]})",
            )
        return std

    def _transition(
        self, x: Tensor, velocity: Tensor, t: Tensor, sigma: Tensor, std: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, A) and std (broadcastable) of one drawn step, in the block.

        Learned noise: mean = x + v dt, std as given (ReinFlow, 2505.22094); fixed: `sde_step`.
        """
        x, velocity = self._block(x), self._block(velocity)
        if self.config.noise == "learned":
            return x + velocity * self._dt, self._given(std)
        mean, scale = sde_step(x, velocity, t, self._dt, sigma)
        return mean, torch.as_tensor(scale)

    def _picked(self, pick: Tensor) -> Tensor:
        """Return the index (N,) of the stochastic step, uniform over the allowed ones."""
        uniform = 2.0 * torch.special.ndtr(pick.abs()) - 1.0
        position = (uniform * len(self.choices)).long().clamp(max=len(self.choices) - 1)
        return self.choices[position]

    def _one_step(self, steps: list[_Step], index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return likelihood and latents of each row's own step."""
        before, after = steps[0].before, steps[0].drawn
        log_prob = torch.zeros_like(after[..., 0])
        for k, step in enumerate(steps):
            is_drawn = (index == k).view(-1, 1, 1)
            before = torch.where(is_drawn, step.before, before)
            after = torch.where(is_drawn, step.drawn, after)
            value = normal_log_prob(step.drawn, step.mean, step.std)
            log_prob = torch.where(is_drawn[..., 0], value, log_prob)
        return log_prob, {"index": index, "before": before, "after": after}

    def _every_step(self, steps: list[_Step]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return likelihood and latents of all steps."""
        latents = {
            "before": torch.stack([step.before for step in steps], dim=1),
            "after": torch.stack([step.drawn for step in steps], dim=1),
        }
        mean = torch.cat([step.mean for step in steps], dim=-1)
        std = torch.cat([step.std.expand_as(step.mean) for step in steps], dim=-1)
        return normal_log_prob(self.sampled_value(latents), mean, std), latents
