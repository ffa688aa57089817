"""Gr00tPolicy: GR00T N1.7 as a policy that is cloned, improved by groups, and deployed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.errors import CheckpointError, ConfigurationError, ContractError
from grpo_ros.policies.base import ActionSample, Observation
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.denoising import Denoiser, Velocity
from grpo_ros.policies.features import state_features
from grpo_ros.policies.gr00t.action_head import ActionHead
from grpo_ros.policies.gr00t.backbone import Backbone
from grpo_ros.policies.gr00t.config import Gr00tConfig, Trained
from grpo_ros.policies.gr00t.embodiment import match
from grpo_ros.policies.gr00t.files.checkpoint import Gr00tCheckpoint, read_checkpoint
from grpo_ros.policies.gr00t.images import ImageTransform
from grpo_ros.policies.gr00t.loading import load_model, prompt_tokens
from grpo_ros.policies.gr00t.perception import Perception, seen_of
from grpo_ros.policies.gr00t.ranges import LinearMap
from grpo_ros.policies.gr00t.trained import choose_what_learns, layers_of, learn
from grpo_ros.policies.noise_network import NoiseNetwork
from grpo_ros.policies.normaliser import Normaliser

STATE, FEATURES, POOLED, IMAGES = "state", "features", "pooled", "images"
"""What is perceived: the contract's states side by side; what the vision-language model makes of
images and instruction, and its mean over tokens; the images, where that model learns too."""
BFLOAT16_RATIO_ROUNDING = 0.1
"""Twice what was measured on a CPU: sums of other batches round otherwise."""


class Gr00tPolicy(ChunkPolicy):
    """A chunk of H steps and C components, denoised by the checkpoint's flow.

    Its first K steps and A components are the contract's, which depend linearly on them; these
    alone are drawn and have a likelihood (`Denoiser`). Images and instruction are looked at once
    per observation, in `perceive`, unless that is trained too. Dropout is off. Tensors come and
    go on the CPU, wherever the model is.

    noise_shape is (H C + draws K A + 1,): the initial noise, the noise of the drawn steps, what
    picks the stochastic step. `mode` starts from zero.

    What is neither cloned nor trained is shared by copies and left out of the state: it is the
    checkpoint's.
    """

    def __init__(
        self,
        config: Gr00tConfig,
        contract: Contract,
        generator: torch.Generator,
    ) -> None:
        """Load the checkpoint; what is added to it is drawn from `generator`.

        Raises:
            ConfigurationError: no checkpoint is named.
            CheckpointError: it is damaged or incomplete.
            ContractError: it does not fit the contract.
            MissingExtraError: the extra gr00t is not installed.
        """
        checkpoint = _named_checkpoint(config)
        checkpoint.warn_of_other_steps(config.num_steps)
        roles = match(checkpoint, contract, config)
        size = _image_size(contract, roles.images)
        is_low = config.precision == "bfloat16"
        dtype = torch.bfloat16 if is_low else torch.float32
        model = load_model(checkpoint, dtype)
        prompt = prompt_tokens(checkpoint, contract.instruction, [size] * len(roles.images))
        backbone = Backbone(model, prompt)
        head = ActionHead(model.action_head, backbone.is_image, checkpoint.embodiment_id)
        block = (contract.chunk_size, contract.action_size)
        denoiser = Denoiser(config, head.shape, block)
        parts = (_product(head.shape), denoiser.num_draws * _product(block), 1)
        super().__init__(seen_of(contract, (*roles.states, *roles.images)), (sum(parts),))
        self.config, self.checkpoint, self._noise_parts = config, checkpoint, parts
        transform = ImageTransform(checkpoint.geometry, checkpoint.image_processor, *size)
        self.perception = Perception(transform, backbone, roles.images)
        self.action_head, self.denoiser = head, denoiser
        self.state_map = LinearMap(roles.state_columns, roles.state_scale)
        self.action_map = LinearMap(roles.action_columns, roles.action_scale)
        self.num_features = self.contract.state_size + backbone.size
        self.normaliser = Normaliser(self.num_features)
        self._groups = choose_what_learns(config, self, self.perception, head.head, generator)
        self._mode: Trained = config.trained
        if config.checkpointing:
            head.recompute()
            backbone.recompute()
        modes = {config.trained, config.cloned_mode}
        self._changed = {name for mode in modes for name in self._groups[mode]}
        self.ratio_rounding = BFLOAT16_RATIO_ROUNDING if is_low else 0.0
        self.noise_network: NoiseNetwork | None = None
        if config.noise == "learned":
            bounds = config.minimum_std, config.maximum_std
            self.noise_network = NoiseNetwork(self.num_features, block, bounds, generator)
        self.to(config.device).eval()

    @contextlib.contextmanager
    def cloning(self) -> Iterator[None]:
        """Train what is cloned instead of what learns from outcomes."""
        self._learn(self.config.cloned_mode)
        try:
            yield
        finally:
            self._learn(self.config.trained)

    def _learn(self, mode: Trained) -> None:
        self._mode = mode
        learn(dict(self.named_parameters()), self._groups, mode)

    # ---------------------------------------------------------------- what is seen

    def perceive(self, obs: Observation) -> Observation:
        """Return the states (N, O), and features (N, L, D) with their mean over tokens (N, D)."""
        images = self.perception.stacked(obs)
        with self._precision(), torch.no_grad():
            features = self.perception(images)
            seen = {STATE: self._states(obs), POOLED: features.float().mean(dim=1).cpu()}
            if self._mode == "full":
                return {**seen, IMAGES: images.cpu()}
            if self._mode == "lora":
                features = self.action_head.context(features)
        return {**seen, FEATURES: features.cpu()}

    def fit_statistics(self, obs: Observation) -> None:
        """Fit what normalises a critic's features; the checkpoint's ranges stay as they are."""
        self.normaliser.fit(self._judged(obs).to(self.normaliser.mean.device))

    def annotate(self, contract: Contract) -> Contract:
        """Return the contract with what the policy sees alone, and its statistics."""
        names = [field.name for field in self.contract.observation]
        return self.normaliser.annotate(seen_of(contract, names))

    def critic_features(self, obs: Observation) -> Tensor:
        """Return states and pooled features, normalised (N, F)."""
        normalised: Tensor = self.normaliser(self._judged(obs).to(self.normaliser.mean.device))
        return normalised.cpu()

    # ---------------------------------------------------------------- what is decided

    def act(self, obs: Observation, noise: Tensor) -> ActionSample:
        """Denoise a chunk from `noise` (N, *noise_shape)."""
        start, draws, pick = torch.split(noise.to(self._device), list(self._noise_parts), 1)
        with self._precision():
            x, log_prob, latents = self.denoiser.sample(
                self._velocity_of(obs),
                start.view(-1, *self.action_head.shape),
                draws.view(-1, self.denoiser.num_draws, *self.denoiser.block),
                pick[:, 0],
                self._std(obs),
            )
        kept = {name: latent.cpu() for name, latent in latents.items()}
        return ActionSample(self._chunk(x).cpu(), log_prob.cpu(), kept)

    def decide(self, obs: Observation, noise: Tensor) -> Tensor:
        """Return the chunk that the deterministic flow makes of x_0 = noise (N, H, C), clamped."""
        seen = self.perceive(obs)
        with self._precision():
            x = self.denoiser.decide(self._velocity_of(seen), noise.to(self._device))
        return self._chunk(x).clamp(-1.0, 1.0).cpu()

    @property
    def seen_names(self) -> tuple[str, ...]:
        """The images; see `features`."""
        return self.perception.images

    def features(self, obs: Observation) -> Tensor:
        """Return what the vision-language model makes of the images, (N, L, D), where it is."""
        with self._precision():
            features: Tensor = self.perception(self.perception.stacked(obs))
        return features

    def decide_on(self, features: Tensor, obs: Observation, noise: Tensor | None) -> Tensor:
        """Return the chunk of `decide`, or of `mode` without noise, given (N, L, D) and states."""
        num = features.shape[0]
        x0 = torch.zeros(num, *self.action_head.shape) if noise is None else noise
        states = state_features(obs, self.contract) if obs else torch.zeros(num, 0)
        with self._precision():
            context = self.action_head.context(features.to(self._device))
            velocity = self._velocity(states, context)
            x = self.denoiser.decide(velocity, x0.to(self._device))
        return self._chunk(x).clamp(-1.0, 1.0).cpu()

    def in_float32(self) -> Gr00tPolicy:
        """Return the policy with all weights in float32, on the CPU, and computing in it.

        It is itself where it is so already, else a copy; weights that are so already are shared.
        """
        kept = [*self.parameters(), *self.buffers()]
        floating = {value.dtype for value in kept if value.is_floating_point()}
        is_exact = floating == {torch.float32} and self._device.type == "cpu"
        if is_exact and self.config.precision == "float32":
            return self
        memo: dict[int, Any] = {id(value): _exact(value) for value in kept}
        config = dataclasses.replace(self.config, precision="float32", device="cpu")
        memo[id(self.config)] = config
        memo[id(self.checkpoint)] = self.checkpoint
        return self._copied(memo)

    def mode(self, obs: Observation) -> Tensor:
        """Return the deployed chunk (N, K, A) in [-1, 1], from x_0 = 0."""
        num = obs[self.perception.images[0]].shape[0]
        return self.decide(obs, torch.zeros(num, *self.action_head.shape))

    def distribution(self, obs: Observation, sample: ActionSample) -> tuple[Tensor, Tensor]:
        """Return mean (N, K, A), or (N, K, D * A) of all steps, and std of what was drawn."""
        latents = {name: value.to(self._device) for name, value in sample.latents.items()}
        with self._precision():
            mean, std = self.denoiser.distribution(self._velocity_of(obs), latents, self._std(obs))
        return mean.cpu(), std.cpu()

    def sampled_value(self, sample: ActionSample) -> Tensor:
        """Return what the stochastic step ended in, or all steps side by side."""
        return self.denoiser.sampled_value(sample.latents)

    def entropy(self, obs: Observation) -> Tensor:
        """Return the entropy (N,) of what is drawn of one chunk step, averaged over the chunk."""
        if self.noise_network is None:
            return self.denoiser.entropy().expand(len(obs[STATE])).cpu()
        return self.denoiser.entropy(self._std(obs)).mean(dim=-1).cpu()

    def cloning_noise(self, num: int, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Return x_0 (num, H, C), standard normal, and t (num,).

        t = s (1 - b), b Beta distributed, with the checkpoint's exponents and s (GR00T N1,
        2503.14734).
        """
        x0 = torch.randn((num, *self.action_head.shape), generator=generator)
        return {"x0": x0, "t": self._times(num, generator)}

    def cloning_error(
        self, obs: Observation, chunk: Tensor, noise: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the flow-matching error |v(x_t, t, obs) - (x_1 - x_0)|^2 per component, (B, K).

        x_t = (1 - t) x_0 + t x_1. x_1 is the chunk where there is one and 0 beyond it, as the
        checkpoint was trained.
        """
        num, (steps, size) = len(chunk), self.denoiser.block
        x1 = torch.zeros(num, *self.action_head.shape)
        x1[:, :steps, :size] = self.action_map.inverse(chunk.to(self._device)).cpu()
        x0, t = noise["x0"], noise["t"]
        at = t.view(-1, 1, 1)
        x = ((1.0 - at) * x0 + at * x1).to(self._device)
        with self._precision():
            v = self._velocity_of(obs)(x, t.to(self._device))
        error = v.float()[:, :steps, :size] - (x1 - x0)[:, :steps, :size].to(self._device)
        return error.square().mean(dim=-1).cpu()

    # ---------------------------------------------------------------- copies and state

    def __deepcopy__(self, memo: dict[int, Any]) -> Gr00tPolicy:
        """Return a copy that shares what is not trained."""
        kept = self._kept()
        for name, parameter in self.named_parameters():
            if name not in kept:
                memo[id(parameter)] = parameter
        memo[id(self.checkpoint)] = self.checkpoint
        return self._copied(memo)

    def _copied(self, memo: dict[int, Any]) -> Gr00tPolicy:
        """Return a copy, in which what `memo` has by its id stands for what it is of."""
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return what training changes: trained parameters, and the normaliser."""
        kept = self._kept()
        whole = super().state_dict(*args, **kwargs)
        return {name: value for name, value in whole.items() if name in kept}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take what `state_dict` gave.

        Raises:
            CheckpointError: something else was trained when it was made.
        """
        odd = sorted(self._kept() ^ state_dict.keys())
        if odd:
            raise CheckpointError(
                f"the state of the policy differs in {len(odd)} tensors, e.g. '{odd[0]}'",
                remedy="resume with the gr00t settings that it was made with",
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def learned(self) -> dict[str, nn.Parameter]:
        """Return what cloning or training changes, by name."""
        kept = self._kept()
        return {name: p for name, p in self.named_parameters() if name in kept}

    def units(self) -> list[nn.Module]:
        """Return the layers of the action head; `Backbone` does not compute by whole layers."""
        return layers_of(self.action_head)

    def _kept(self) -> set[str]:
        added = {f"normaliser.{name}" for name, _ in self.normaliser.named_buffers()}
        if self.noise_network is not None:
            added |= {f"noise_network.{name}" for name, _ in self.noise_network.named_parameters()}
        return self._changed | added

    # ---------------------------------------------------------------- inside

    @property
    def _device(self) -> torch.device:
        return self.action_head.embodiment.device

    def _precision(self) -> torch.autocast:
        is_low = self.config.precision == "bfloat16"
        return torch.autocast(self._device.type, torch.bfloat16, enabled=is_low)

    def _states(self, obs: Observation) -> Tensor:
        if not self.contract.state_size:
            return torch.zeros(obs[self.perception.images[0]].shape[0], 0)
        return state_features(obs, self.contract)

    def _judged(self, obs: Observation) -> Tensor:
        return torch.cat((obs[STATE], obs[POOLED]), dim=1)

    def _velocity_of(self, seen: Observation) -> Velocity:
        """Return the flow's velocity, given what was perceived."""
        head, mode = self.action_head, self._mode
        if mode == "full":
            context = head.context(self.perception(seen[IMAGES].to(self._device)))
        else:
            context = seen[FEATURES].to(self._device)
            context = context if mode == "lora" else head.context(context)
        return self._velocity(seen[STATE], context)

    def _velocity(self, states: Tensor, context: Tensor) -> Velocity:
        """Return the flow's velocity, given states (N, O) and what is attended to (N, L, D)."""
        head = self.action_head
        state = self.state_map(states.to(self._device))
        if self.checkpoint.clip_outliers:
            state = state.clamp(-1.0, 1.0)
        token = head.encode_state(state)
        return lambda x, t: head.velocity(x, t, context, token).float()

    def _std(self, obs: Observation) -> Tensor | None:
        """Return the learned standard deviation (N, K, A), where there is one."""
        if self.noise_network is None:
            return None
        std: Tensor = self.noise_network(self.critic_features(obs).to(self._device))
        return std

    def _chunk(self, x: Tensor) -> Tensor:
        """Return the contract's chunk (N, K, A) of a denoised x (N, H, C)."""
        steps, size = self.denoiser.block
        chunk: Tensor = self.action_map(x[:, :steps, :size])
        return chunk

    def _times(self, num: int, generator: torch.Generator) -> Tensor:
        alpha, beta, scale = self.action_head.time_exponents
        seed = int(torch.randint(2**62, (), generator=generator))
        drawn = np.random.default_rng(seed).beta(alpha, beta, num)
        return ((1.0 - torch.from_numpy(drawn)) * scale).float()


def _named_checkpoint(config: Gr00tConfig) -> Gr00tCheckpoint:
    if not config.policy_path:
        raise ConfigurationError(
            "'gr00t.policy_path' is empty",
            expected="the folder of a GR00T N1.7 checkpoint",
            remedy="policy_path:=/path/to/checkpoint; `grpo-ros make-tiny-gr00t DIR` makes a "
            "tiny one to try things with",
        )
    return read_checkpoint(config.policy_path, config.tokenizer_path, config.embodiment)


def _exact(value: Tensor) -> Tensor:
    """Return a parameter or buffer in float32, if it is a floating one, on the CPU."""
    dtype = torch.float32 if value.is_floating_point() else value.dtype
    moved = value.detach().to("cpu", dtype)
    if isinstance(value, nn.Parameter):
        is_same = moved.data_ptr() == value.data_ptr() and moved.dtype == value.dtype
        return value if is_same else nn.Parameter(moved, requires_grad=value.requires_grad)
    return moved


def _image_size(contract: Contract, images: tuple[str, ...]) -> tuple[int, int]:
    sizes = {field.shape[:2] for field in contract.observation if field.name in images}
    if len(sizes) != 1:
        raise ContractError(f"images of sizes {sorted(sizes)}", expected="one size for all")
    height, width = sizes.pop()
    return height, width


def _product(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
