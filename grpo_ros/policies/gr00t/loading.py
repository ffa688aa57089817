"""Model and prompts of a GR00T checkpoint, from LeRobot's model classes and the tokenizer.

The heavy packages are imported on the first call, which takes some 20 s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from grpo_ros.errors import CheckpointError
from grpo_ros.extras import import_extra, quiet_and_offline
from grpo_ros.policies.gr00t.files.checkpoint import Gr00tCheckpoint
from grpo_ros.policies.gr00t.files.image_settings import Size, output_size

if TYPE_CHECKING:
    from lerobot.policies.groot.groot_n1_7 import GR00TN17

MODEL_MODULE = "lerobot.policies.groot.groot_n1_7"
UNUSED_SUFFIX = "lm_head.weight"
"""Tied to the embedding and never used, so checkpoints leave it out."""
DEFAULT_INSTRUCTION = "Perform the task."
IMAGE_TOKEN = "<|image_pad|>"


@dataclasses.dataclass(frozen=True)
class PromptTokens:
    """What the backbone reads.

    Attributes:
        input_ids: (1, L) int64.
        is_image: (1, L) bool, where a token stands for a block of an image's patches.
        grids: (rows, columns) of patches of each image, in order.
    """

    input_ids: Tensor
    is_image: Tensor
    grids: tuple[Size, ...]


def load_model(
    checkpoint: Gr00tCheckpoint,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> GR00TN17:
    """Return the model with the checkpoint's weights.

    It is in evaluation mode, without dropout of any kind, and nothing of it is trainable until
    the caller says so.

    Args:
        checkpoint: as `read_checkpoint` gave it.
        dtype: of all weights.
        device: where they are.

    Raises:
        CheckpointError: the model that config.json describes cannot be built, or a tensor is
            missing, superfluous or of another shape.
        MissingExtraError: lerobot, or what it needs, is not installed.
    """
    classes = import_extra(MODEL_MODULE)
    tensors = _tensors(checkpoint)
    with quiet_and_offline(), torch.random.fork_rng(devices=[]):  # the unused head is drawn
        try:
            model, report = _built(classes, checkpoint, tensors, dtype)
        except Exception as problem:  # whatever a wrong configuration leads to in three packages
            raise CheckpointError(
                f"{checkpoint.path}: the model cannot be built: "
                f"{type(problem).__name__}: {' '.join(str(problem).split())}",
                remedy="take a checkpoint whose config.json describes its weights",
            ) from problem
    _check_report(checkpoint, report)
    _check_shapes(checkpoint, model)
    _tie_unused_head(model.backbone.model)
    without_dropout(model)
    model.requires_grad_(False)
    loaded: GR00TN17 = model.to(device).eval()
    return loaded


def meta_model(checkpoint: Gr00tCheckpoint | None, dtype: torch.dtype = torch.float32) -> GR00TN17:
    """Return the model without weights, on torch's meta device: its sizes alone, no memory.

    Args:
        checkpoint: whose config.json describes it; None: GR00T N1.7 3B, by LeRobot's defaults.
        dtype: of all weights.

    Raises:
        CheckpointError: the model that config.json describes cannot be built.
        MissingExtraError: lerobot, or what it needs, is not installed.
    """
    classes = import_extra(MODEL_MODULE)
    with quiet_and_offline(), torch.device("meta"):
        try:
            config = (
                classes.GR00TN17Config()
                if checkpoint is None
                else _model_config(classes, checkpoint)
            )
            model: GR00TN17 = classes.GR00TN17(
                config,
                load_backbone_weights=False,
                transformers_loading_kwargs={"local_files_only": True, "trust_remote_code": False},
            )
        except Exception as problem:  # as in load_model
            raise CheckpointError(
                f"{checkpoint.path if checkpoint else 'GR00T N1.7'}: the model cannot be built: "
                f"{type(problem).__name__}: {' '.join(str(problem).split())}",
                remedy="take a checkpoint whose config.json describes a GR00T N1.7",
            ) from problem
    model.requires_grad_(False)
    cast: GR00TN17 = model.to(dtype)
    return cast


def _model_config(classes: Any, checkpoint: Gr00tCheckpoint) -> Any:
    """Return LeRobot's GR00TN17Config of a checkpoint's config.json."""
    known = classes.GR00T_N1_7_DEFAULTS
    settings = {key: value for key, value in checkpoint.model_config.items() if key in known}
    settings["model_name"] = checkpoint.backbone or str(checkpoint.tokenizer_path)
    settings["load_bf16"] = settings["use_flash_attention"] = False
    return classes.GR00TN17Config(**settings)


def _built(
    classes: Any, checkpoint: Gr00tCheckpoint, tensors: dict[str, Tensor], dtype: torch.dtype
) -> tuple[Any, Mapping[str, Any]]:
    """Return the model with these tensors, and transformers' report about them.

    transformers is handed settings and tensors, not the folder: what else lies there (adapters,
    code, other weights) is not looked at. Of config.json only the model's own settings count.
    """
    # GR00TN17's own from_pretrained asks the hub first; its parent's does not.
    from_pretrained = import_extra("transformers").PreTrainedModel.from_pretrained.__func__
    built: tuple[Any, Mapping[str, Any]] = from_pretrained(
        classes.GR00TN17,
        None,
        config=_model_config(classes, checkpoint),
        state_dict=tensors,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in the report, which is checked
        local_files_only=True,
        load_backbone_weights=False,
        transformers_loading_kwargs={"local_files_only": True, "trust_remote_code": False},
    )
    return built


def without_dropout(model: nn.Module) -> None:
    """Set every dropout probability of a model, of states included, to 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "state_dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def load_tokenizer(checkpoint: Gr00tCheckpoint) -> Any:
    """Return the tokenizer, a transformers.PreTrainedTokenizerBase that pads on the left.

    Raises:
        CheckpointError: its files are damaged, or it has no chat template or image token.
        MissingExtraError: transformers is not installed.
    """
    transformers = import_extra("transformers")
    with quiet_and_offline():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(checkpoint.tokenizer_path), local_files_only=True, trust_remote_code=False
            )
        except Exception as problem:  # the tokenizers library raises plain exceptions
            raise CheckpointError(
                f"{checkpoint.tokenizer_path}: no tokenizer: {' '.join(str(problem).split())}",
                expected="the tokenizer of the backbone",
            ) from problem
    tokenizer.padding_side = "left"
    if not tokenizer.chat_template or IMAGE_TOKEN not in tokenizer.get_vocab():
        raise CheckpointError(
            f"{checkpoint.tokenizer_path} has no chat template or no token {IMAGE_TOKEN}",
            expected="the tokenizer of a Qwen3-VL",
        )
    return tokenizer


def formalised(instruction: str) -> str:
    """Return an instruction in lower case, of letters, digits, white space and _ alone.

    As LeRobot's prepare_n1_7_language_batch does it.
    """
    kept = (c for c in instruction.lower() if c.isalnum() or c.isspace() or c == "_")
    return "".join(kept)


def prompt_tokens(
    checkpoint: Gr00tCheckpoint,
    instruction: str,
    image_sizes: Sequence[Size],
    tokenizer: Any = None,
) -> PromptTokens:
    """Return the prompt: one turn of the user, images first, then the instruction.

    Equal to what LeRobot's GrootN17VLMEncodeStep and transformers' Qwen3VLProcessor make: the
    chat template without a generation prompt, each image token repeated once per block of
    merge_size x merge_size patches.

    Args:
        checkpoint: as `read_checkpoint` gave it.
        instruction: what to do, in words; empty: "Perform the task.".
        image_sizes: (height, width) of the cameras' images, in the prompt's order.
        tokenizer: of `load_tokenizer`; loaded anew if absent.

    Raises:
        CheckpointError: the tokenizer cannot be used, or its template does not place the images.
        MissingExtraError: transformers is not installed.
    """
    tokenizer = tokenizer if tokenizer is not None else load_tokenizer(checkpoint)
    text = instruction or DEFAULT_INSTRUCTION
    text = formalised(text) if checkpoint.formalize_language else text
    content: list[Mapping[str, str]] = [{"type": "image"} for _ in image_sizes]
    turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
    try:
        prompt = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=False)
    except Exception as problem:  # jinja's own, out of a template from anybody
        raise CheckpointError(
            f"{checkpoint.tokenizer_path}: the chat template fails: {problem}"
        ) from problem
    parts = prompt.split(IMAGE_TOKEN)
    if len(parts) != len(image_sizes) + 1:
        raise CheckpointError(
            f"the chat template of {checkpoint.tokenizer_path} places {len(parts) - 1} images",
            expected=f"{len(image_sizes)}, one {IMAGE_TOKEN} each",
        )
    settings = checkpoint.image_processor
    grids = tuple(settings.grid(output_size(checkpoint.geometry, size)) for size in image_sizes)
    prompt = parts[0]
    for (rows, columns), part in zip(grids, parts[1:], strict=True):
        prompt += IMAGE_TOKEN * (rows * columns // settings.merge_size**2) + part
    input_ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    return PromptTokens(
        input_ids, input_ids == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN), grids
    )


def _tensors(checkpoint: Gr00tCheckpoint) -> dict[str, Tensor]:
    """Return all tensors on the CPU; the files stay mapped, and are read when they are used."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in checkpoint.shards:
        tensors.update(load_file(path))
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(
                f"{checkpoint.path}: tensor '{name}' is {tensor.dtype}",
                expected="weights of a floating-point type",
            )
    return tensors


def _check_report(checkpoint: Gr00tCheckpoint, report: Mapping[str, Any]) -> None:
    missing = [key for key in report["missing_keys"] if not key.endswith(UNUSED_SUFFIX)]
    found = {
        "missing": missing,
        "superfluous": report["unexpected_keys"],
        "of another shape": [str(item[0]) for item in report["mismatched_keys"]],
    }
    for problem, names in found.items():
        if names:
            raise CheckpointError(
                f"{checkpoint.path}: {len(names)} tensors are {problem}, e.g. '{min(names)}'",
                expected="the tensors of the model that config.json describes",
                remedy="download or copy the checkpoint again",
            )


def _check_shapes(checkpoint: Gr00tCheckpoint, model: nn.Module) -> None:
    """Raise unless every tensor of the model is one of the checkpoint's, of its shape."""
    for name, tensor in model.state_dict().items():
        if name.endswith(UNUSED_SUFFIX):
            continue
        if checkpoint.shapes.get(name) != tuple(tensor.shape) or tensor.is_meta:
            raise CheckpointError(
                f"{checkpoint.path}: tensor '{name}' has shape {checkpoint.shapes.get(name)}",
                expected=f"{tuple(tensor.shape)}",
            )


def _tie_unused_head(backbone: Any) -> None:
    """Let the head that is never used share the embedding's memory, as LeRobot builds it."""
    if getattr(backbone, "lm_head", None) is not None:
        backbone.lm_head.weight = backbone.get_input_embeddings().weight
