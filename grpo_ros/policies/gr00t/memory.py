"""What a GR00T needs of memory, counted on a model without weights.

The model is built on torch's meta device, and frozen and given adapters as Gr00tPolicy does it, so
parameters are counted and not computed. What autograd keeps is estimated (`activations`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError
from grpo_ros.policies.base import ActionSample
from grpo_ros.policies.denoising import Denoiser
from grpo_ros.policies.gr00t import activations
from grpo_ros.policies.gr00t.activations import Prompt
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.gr00t.embodiment import match
from grpo_ros.policies.gr00t.embodiment_layers import keep_embodiment
from grpo_ros.policies.gr00t.files.checkpoint import read_checkpoint
from grpo_ros.policies.gr00t.files.image_settings import DEFAULT_TARGET_SIZE
from grpo_ros.policies.gr00t.files.tiny_checkpoint import PROPRIOCEPTION
from grpo_ros.policies.gr00t.loading import formalised, meta_model, prompt_tokens
from grpo_ros.policies.gr00t.perception import seen_of
from grpo_ros.policies.gr00t.trained import choose_what_learns
from grpo_ros.policies.memory import (
    FLOAT_BYTES,
    PolicyMemory,
    observation_bytes,
    sample_bytes,
    weights_of,
)
from grpo_ros.policies.noise_network import NoiseNetwork

TEMPLATE_TOKENS, TOKENS_PER_IMAGE, TOKENS_PER_WORD = 5, 2, 4 / 3
"""Of Qwen3-VL's chat template for a turn and around an image; of an English word, about."""


@dataclasses.dataclass(frozen=True)
class Sight:
    """What is read of a task.

    Attributes:
        name: what was counted.
        contract: with what the model sees alone.
        images: names of the images. prompt: how much is read.
    """

    name: str
    contract: Contract
    images: tuple[str, ...]
    prompt: Prompt


class _Model(nn.Module):
    """The parts of a model that Gr00tPolicy takes over."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        whole = model.backbone.model.model
        language = whole.language_model
        self.perception = nn.ModuleList([whole.visual, language.embed_tokens, language.layers])
        self.head = model.action_head
        self._sizes = (whole.visual, language)

    @property
    def visual(self) -> Any:
        return self._sizes[0]

    @property
    def language(self) -> Any:
        return self._sizes[1]

    def parts(self) -> dict[str, int]:
        """Return the number of parameters of each part."""
        visual, embedding, layers = self.perception
        head = self.head
        parts = {
            "vision tower": visual,
            "language model": nn.ModuleList([embedding, layers]),
            "VL self-attention": nn.ModuleList([head.vlln, head.vl_self_attention]),
            "state encoder": head.state_encoder,
            "action encoder": head.action_encoder,
            "diffusion transformer": head.model,
            "action decoder": head.action_decoder,
        }
        counted = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        whole = sum(p.numel() for p in self.parameters())
        return {**counted, "positions": whole - sum(counted.values())}


def gr00t_memory(config: Gr00tConfig, contract: Contract) -> PolicyMemory:
    """Return the memory of the Gr00tPolicy that `config` describes, without loading it.

    Without `policy_path` it is GR00T N1.7 3B by LeRobot's defaults, on the contract's images and
    the states that a robot measures about itself; the length of the prompt is estimated then.

    Raises:
        CheckpointError, ContractError, MissingExtraError: as Gr00tPolicy.
    """
    checkpoint = (
        read_checkpoint(config.policy_path, config.tokenizer_path, config.embodiment)
        if config.policy_path
        else None
    )
    is_low = config.precision == "bfloat16"
    model = _Model(meta_model(checkpoint, torch.bfloat16 if is_low else torch.float32))
    sight = _default_sight(contract, model) if checkpoint is None else _sight(config, contract)
    parts = model.parts()
    keep_embodiment(model.head, 0 if checkpoint is None else checkpoint.embodiment_id)
    choose_what_learns(config, model, model.perception, model.head, torch.Generator())
    head, block = model.head, (contract.chunk_size, contract.action_size)
    denoiser = Denoiser(config, (head.action_horizon, head.action_dim), block)
    num_features = sight.contract.state_size + model.language.config.hidden_size
    if config.noise == "learned":
        bounds = config.minimum_std, config.maximum_std
        model.noise = NoiseNetwork(num_features, block, bounds, torch.Generator())
    trained = weights_of(model, trained=True)
    kept, checkpointed, recomputed = _activations(config, model, sight.prompt, denoiser)
    element_bytes = 2 if is_low else FLOAT_BYTES
    return PolicyMemory(
        name=sight.name,
        parts=parts,
        frozen=weights_of(model, trained=False),
        trained=trained,
        gradients=trained.num_bytes,
        casts=_cast_bytes(model) if is_low else 0,
        num_features=num_features,
        perceived=_perceived(config, sight, model),
        sampled=_sampled(denoiser),
        noise=FLOAT_BYTES
        * (math.prod(denoiser.shape) + denoiser.num_draws * math.prod(denoiser.block) + 1),
        activations=kept,
        checkpointed=checkpointed,
        acting=activations.acting_bytes(model.visual, model.language, sight.prompt, element_bytes),
        device=config.device,
        recomputed=recomputed,
        is_checkpointed=config.checkpointing,
    )


def _activations(
    config: Gr00tConfig, model: _Model, prompt: Prompt, denoiser: Denoiser
) -> tuple[int, int, int]:
    """Return the bytes that autograd keeps per row, without and with checkpointing.

    The last number is what of the second is there for the block alone that is computed again: one
    at a time, so the largest counts.

    Sum over what has a gradient: lora, the diffusion transformer and the decoder; head, the
    encoders and the self-attention over features as well; full, the vision-language model too.
    The first and the last two are evaluated once for every drawn step.
    """
    element_bytes = 2 if config.precision == "bfloat16" else FLOAT_BYTES
    rank = config.lora_rank if config.trained == "lora" else 0
    once: list[activations.Blocks] = []
    if config.trained != "lora":
        once += activations.context_blocks(model.head, prompt)
    if config.trained == "full":
        once += activations.vision_blocks(model.visual, prompt)
        once += activations.language_blocks(model.language, prompt)
    flow = activations.transformer_blocks(model.head, prompt, rank)
    is_trained = config.trained != "lora"
    values = activations.embodiment_values(model.head, trained=is_trained)
    patches = activations.patch_values(model.visual, prompt) if config.trained == "full" else 0
    kept = []
    for checkpointed in (False, True):
        of_once = activations.kept_bytes(once, element_bytes, checkpointed=checkpointed)
        of_flow = activations.kept_bytes(flow, element_bytes, checkpointed=checkpointed)
        of_flow += element_bytes * values + activations.output_bytes(model.head)
        of_once += element_bytes * patches
        kept.append(of_once + denoiser.num_draws * of_flow)
    again = max(part.of_one(element_bytes) for part in (*once, *flow) if part.is_block)
    return kept[0], kept[1] + again, again


def _perceived(config: Gr00tConfig, sight: Sight, model: _Model) -> dict[str, int]:
    """Return the bytes of what `Gr00tPolicy.perceive` gives, per observation.

    Features have the computed precision; where the self-attention over them is done already and
    CUDA computes, its normalisation makes them float32.
    """
    width = model.language.config.hidden_size
    state = FLOAT_BYTES * sight.contract.state_size
    seen = {"state": state, "pooled": FLOAT_BYTES * width}
    if config.trained == "full":
        sizes = observation_bytes(sight.contract)
        return {**seen, "images": sum(sizes[name] for name in sight.images)}
    is_wide = config.trained == "lora" and torch.device(config.device).type == "cuda"
    element_bytes = 2 if config.precision == "bfloat16" and not is_wide else FLOAT_BYTES
    return {**seen, "features": sight.prompt.num_tokens * width * element_bytes}


def _sampled(denoiser: Denoiser) -> int:
    """Return the bytes of one sample, by drawing one from a flow that stands still."""
    count, size = denoiser.block
    std = torch.ones(1, *denoiser.block) if denoiser.config.noise == "learned" else None
    x, log_prob, latents = denoiser.sample(
        lambda x, t: torch.zeros_like(x),
        torch.zeros(1, *denoiser.shape),
        torch.zeros(1, denoiser.num_draws, count, size),
        torch.zeros(1),
        std,
    )
    return sample_bytes(ActionSample(x[:, :count, :size], log_prob, latents))


def _cast_bytes(model: nn.Module) -> int:
    """Return the bytes of what autocast copies to bfloat16: the trained layers' matrices."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv3d)]
    weights = {id(p): p for layer in layers for p in layer.parameters() if p.requires_grad}
    return sum(2 * p.numel() for p in weights.values() if p.dtype is torch.float32)


def _sight(config: Gr00tConfig, contract: Contract) -> Sight:
    """Return what a checkpoint's embodiment reads of the contract."""
    checkpoint = read_checkpoint(config.policy_path, config.tokenizer_path, config.embodiment)
    roles = match(checkpoint, contract, config)
    sizes = {f.name: (f.shape[0], f.shape[1]) for f in contract.observation if len(f.shape) == 3}
    prompt = prompt_tokens(
        checkpoint, contract.instruction, [sizes[name] for name in roles.images]
    )
    rows, columns = prompt.grids[0]
    read = Prompt(len(roles.images), rows * columns, prompt.input_ids.shape[1])
    seen = seen_of(contract, (*roles.states, *roles.images))
    return Sight(str(checkpoint.path), seen, roles.images, read)


def _default_sight(contract: Contract, model: _Model) -> Sight:
    """Return what the default model reads of the contract."""
    images = tuple(f.name for f in contract.observation if f.source.kind == "camera")
    if not images:
        raise ContractError(
            f"task '{contract.task}' observes no image",
            expected="at least one camera",
            remedy="task.cameras:=[overview]",
        )
    states = tuple(f.name for f in contract.state_fields if f.source.kind in PROPRIOCEPTION)
    vision = model.visual.config
    rows, columns = (edge // vision.patch_size for edge in DEFAULT_TARGET_SIZE)
    per_image = rows * columns // vision.spatial_merge_size**2 + TOKENS_PER_IMAGE
    words = len(formalised(contract.instruction).split())
    num_tokens = TEMPLATE_TOKENS + len(images) * per_image + math.ceil(TOKENS_PER_WORD * words)
    prompt = Prompt(len(images), rows * columns, num_tokens)
    return Sight("GR00T N1.7 3B", seen_of(contract, (*states, *images)), images, prompt)
