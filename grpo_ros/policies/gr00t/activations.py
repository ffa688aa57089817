"""What autograd keeps of a GR00T's forward pass, and what deciding needs, from layer sizes.

The counting is that of Korthikanti et al., "Reducing activation recomputation in large transformer
models" (2205.05198), operation by operation: what a gradient needs of the forward pass is kept.
Its 34 s b h bytes of a block in 16 bits are 16 s b h elements and the masks of dropout, which is
off here; it differs from the blocks below by normalisation, rotary embedding and gated layers,
which it does not have. Attention that is fused keeps no matrix of scores; the language model's is
not fused (`eager`), so it keeps heads x tokens of them per token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

FLOAT_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Equal layers, and the elements that autograd keeps of each, for one observation.

    Attributes:
        num: how many.
        tokens, width: of what goes in.
        exact: elements in float32 whatever the precision: normalisation and residual stream.
        computed: elements in the precision that is computed in.
        is_block: whether it may be computed again for its gradient.
    """

    num: int
    tokens: int
    width: int
    exact: int
    computed: int
    is_block: bool = True

    def kept(self, element_bytes: int) -> int:
        """Return num (4 exact + b computed) bytes."""
        return self.num * (FLOAT_BYTES * self.exact + element_bytes * self.computed)

    @property
    def inputs(self) -> int:
        """Bytes of what goes into all of them, 4 num tokens width."""
        return FLOAT_BYTES * self.num * self.tokens * self.width

    def of_one(self, element_bytes: int) -> int:
        """Return the bytes of one of them, 0 where there is none."""
        return self.kept(element_bytes) // max(1, self.num)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What is read per observation: V images of P patches each, L tokens in all."""

    num_images: int
    num_patches: int
    num_tokens: int


def vision_blocks(visual: Any, prompt: Prompt) -> tuple[Blocks, ...]:
    """Return the vision tower's layers and its mergers, of width w and inner width f.

    Per patch: 2 w exact (into each normalisation); 9 w + 2 f computed: two normalised, query,
    key and value, query and key turned, mixed and mixed in order, before and after the
    activation. A merger keeps 4 w of a patch, normalised and before and after its activation.
    """
    config, patches = visual.config, prompt.num_images * prompt.num_patches
    width, inner = config.hidden_size, config.intermediate_size
    layers = Blocks(
        len(visual.blocks), patches, width, 2 * patches * width, patches * (9 * width + 2 * inner)
    )
    num_mergers = 1 + len(visual.deepstack_merger_list)
    exact, computed = patches * width, 3 * patches * width
    return layers, Blocks(num_mergers, patches, width, exact, computed, is_block=False)


def language_blocks(language: Any, prompt: Prompt) -> tuple[Blocks, ...]:
    """Return the language model's layers: width w, inner f, a heads of q, and k key-value, values.

    Per token: 4 w + 2 q + 2 k + a L exact (RMS normalisation before and after it is scaled, of
    queries and keys too; scores); 2 w + 4 q + 4 f + a L computed (normalised; query and key
    turned, key and value for every head, mixed; gate, its activation, up, their product).
    """
    config, tokens = language.config, prompt.num_tokens
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    query, key = heads * config.head_dim, config.num_key_value_heads * config.head_dim
    exact = tokens * (4 * width + 2 * query + 2 * key + heads * tokens)
    computed = tokens * (2 * width + 4 * query + 4 * inner + heads * tokens)
    return (Blocks(len(language.layers), tokens, width, exact, computed),)


def context_blocks(head: Any, prompt: Prompt) -> tuple[Blocks, ...]:
    """Return the self-attention over features: per token 2 w exact, 7 w + 2 f computed."""
    blocks = getattr(head.vl_self_attention, "transformer_blocks", ())
    tokens, width = prompt.num_tokens, head.config.backbone_embedding_dim
    inner = 4 * width
    return (
        Blocks(len(blocks), tokens, width, 2 * tokens * width, tokens * (7 * width + 2 * inner)),
    )


def transformer_blocks(head: Any, prompt: Prompt, rank: int) -> tuple[Blocks, ...]:
    """Return the diffusion transformer's layers: s = horizon + 1 tokens of width w, inner f = 4 w.

    Every one keeps 3 s w exact (adaptive normalisation keeps what it scales) and 3 w of its
    scales. Self-attention: s (7 w + 2 f) computed; cross-attention to L tokens: s (5 w + 2 f) +
    2 L w. Adapters of rank r keep r values more per token of each linear layer.
    """
    tokens, width = head.action_horizon + 1, head.model.inner_dim
    inner, context = 4 * width, prompt.num_tokens
    num = len(head.model.transformer_blocks)
    num_self = num // 2 if head.config.diffusion_model_cfg.get("interleave_self_attention") else 0
    exact = 3 * tokens * width + 3 * width
    own = tokens * (7 * width + 2 * inner + 6 * rank)
    cross = tokens * (5 * width + 2 * inner + 4 * rank) + context * 2 * (width + rank)
    return (
        Blocks(num_self, tokens, width, exact, own),
        Blocks(num - num_self, tokens, width, exact, cross),
    )


def embodiment_values(head: Any, *, trained: bool) -> int:
    """Return the elements kept of a robot's own layers: H steps of width w, inner f, C components.

    Of the decoder what its activation gives, (H + 1) f. Where the head is trained also what goes
    into it, and of the action encoder its input, both halves of the second layer's, before and
    after its activation, and the gate of that: H (C + 5 w).
    """
    horizon, width = int(head.action_horizon), int(head.config.input_embedding_dim)
    inner = int(head.action_decoder.layer1.out_features)
    values = (horizon + 1) * inner
    if trained:
        values += (horizon + 1) * int(head.action_decoder.layer1.in_features)
        values += horizon * (int(head.action_dim) + 5 * width)
    return values


def output_bytes(head: Any) -> int:
    """Return what the end of the diffusion transformer keeps: 12 s w bytes, s tokens of width w.

    In float32: into its normalisation, out of it, and out of its scale.
    """
    return int(3 * FLOAT_BYTES * (head.action_horizon + 1) * head.model.inner_dim)


def patch_values(visual: Any, prompt: Prompt) -> int:
    """Return the elements of all patches, which the gradient of their embedding needs."""
    config = visual.config
    per_patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    return int(prompt.num_images * prompt.num_patches * per_patch)


def kept_bytes(blocks: Iterable[Blocks], element_bytes: int, *, checkpointed: bool) -> int:
    """Return what all layers keep for one observation; where they are checkpointed, their inputs.

    A merger is no block that is computed again.
    """
    if checkpointed:
        return sum(part.inputs if part.is_block else part.kept(element_bytes) for part in blocks)
    return sum(part.kept(element_bytes) for part in blocks)


def acting_bytes(visual: Any, language: Any, prompt: Prompt, element_bytes: int) -> int:
    """Return the most that one observation needs at a time while a chunk is decided.

    The greater of two: in the vision tower V P (6 w + 2 f); in the language model L (2 w + 3 f)
    and two matrices of scores in float32. Nothing is kept.
    """
    config, tokens = visual.config, prompt.num_tokens
    patches = prompt.num_images * prompt.num_patches
    seeing = patches * (6 * config.hidden_size + 2 * config.intermediate_size) * element_bytes
    config = language.config
    reading = tokens * (2 * config.hidden_size + 3 * config.intermediate_size) * element_bytes
    reading += 2 * FLOAT_BYTES * config.num_attention_heads * tokens**2
    return int(max(seeing, reading))
