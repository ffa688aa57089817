"""make_tiny_tokenizer: tokenizer, image processor and backbone configuration of a tiny GR00T."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo_ros.extras import import_extra
from grpo_ros.policies.gr00t.loading import IMAGE_TOKEN, formalised

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    IMAGE_TOKEN,
    "<|video_pad|>",
)
"""Qwen's own, in its order; the first pads, the third ends a turn."""
VOCABULARY = 400
NUM_EMBEDDINGS = 512
CHAT_TEMPLATE = """\
{%- macro item(part) -%}
  {%- if part.type == 'image' -%}
    <|vision_start|><|image_pad|><|vision_end|>
  {%- else -%}
    {{ part.text }}
  {%- endif -%}
{%- endmacro -%}
{%- for turn in messages -%}
  {{ '<|im_start|>' ~ turn.role ~ '\\n' }}
  {%- if turn.content is string -%}
    {{ turn.content }}
  {%- else -%}
    {%- for part in turn.content -%}{{ item(part) }}{%- endfor -%}
  {%- endif -%}
  {{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""One turn after the other, as Qwen3-VL writes them."""
PATCH = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
HALF = [0.5, 0.5, 0.5]


def make_tiny_tokenizer(folder: Path, instructions: Sequence[str], width: int) -> None:
    """Write a byte-pair tokenizer trained on the instructions, and what stands beside it.

    Args:
        folder: where; made if absent.
        instructions: as they are and formalised.
        width: of the backbone.

    Raises:
        MissingExtraError: transformers or tokenizers is not installed.
    """
    transformers = import_extra("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_trained(instructions),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )
    tokenizer.save_pretrained(folder)
    transformers.Qwen2VLImageProcessor(
        **PATCH, min_pixels=32 * 32, max_pixels=512 * 512, image_mean=HALF, image_std=HALF
    ).save_pretrained(folder)
    transformers.Qwen3VLVideoProcessor(**PATCH).save_pretrained(folder)
    _backbone_config(transformers, width).save_pretrained(folder)


def _trained(instructions: Sequence[str]) -> Any:
    """Return a trained byte-pair tokenizer; ids 0 to 7 are the special tokens."""
    tokenizers = import_extra("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
        initial_alphabet=sorted(byte_level.alphabet()),
    )
    texts = ["user", "assistant", *instructions, *map(formalised, instructions)]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _backbone_config(transformers: Any, width: int) -> Any:
    """Return a Qwen3-VL of four layers with DeepStack; the model takes the first three."""
    heads, depth = 4, 4
    ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    shared = {"hidden_size": width, "intermediate_size": 2 * width}
    config = transformers.Qwen3VLConfig(
        image_token_id=ids[IMAGE_TOKEN],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        text_config={
            **shared,
            "vocab_size": NUM_EMBEDDINGS,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "head_dim": width // heads,
            "max_position_embeddings": 4096,
            "rope_theta": 5_000_000,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [width // 16, width // 32, width // 32],
                "rope_type": "default",
            },
            "tie_word_embeddings": True,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            **shared,
            "depth": depth,
            "num_heads": heads,
            "patch_size": PATCH["patch_size"],
            "temporal_patch_size": PATCH["temporal_patch_size"],
            "spatial_merge_size": PATCH["merge_size"],
            "out_hidden_size": width,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 2],
            "in_channels": 3,
        },
    )
    config.architectures = ["Qwen3VLForConditionalGeneration"]
    return config
