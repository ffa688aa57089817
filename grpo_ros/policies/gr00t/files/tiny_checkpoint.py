"""make_tiny_checkpoint: a GR00T N1.7 of some two million random weights, for tests and trials.

The architecture is the real one (Qwen3-VL with DeepStack, alternating cross-attention,
embodiment-specific encoders), narrower and shallower; the files are those of the upstream layout.
It has learned nothing. No real weights are needed to make it, and nothing is downloaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from grpo_ros.contract import ActionField, Contract, ObservationField
from grpo_ros.errors import CheckpointError, ContractError
from grpo_ros.extras import import_extra, quiet_and_offline
from grpo_ros.observations import TIP
from grpo_ros.policies.gr00t.files.image_settings import (
    DEFAULT_CROP_SIZE,
    DEFAULT_TARGET_SIZE,
    Size,
)
from grpo_ros.policies.gr00t.files.tiny_tokenizer import make_tiny_tokenizer
from grpo_ros.policies.gr00t.loading import MODEL_MODULE

EMBODIMENT, EMBODIMENT_ID = "new_embodiment", 10
DEFAULT_CAMERA = "overview"
"""The one that every task has, for contracts that observe none."""
MAX_DIM = 132
"""Components of states and of actions in the real model, where a robot's are padded to it."""
TINY_DIM = 32
"""The same where a task's are no more: what is padded is noise to a flow, and 64 wide layers have
to learn to let it go."""
CHUNK_HORIZON = 40
"""Steps of a chunk in the real model."""
MINIMUM_HORIZON = 8
WIDTH = 64
DRAWN_STD, EMBEDDING_STD = 0.02, 0.3
"""Of the weights as the model's classes draw them; of embeddings, on the scale of what they are
added to."""
BLOCK = 16
"""Pixels of an image's edge that one token stands for; edges are multiples of it."""
MAX_EDGE = 512

Ranges = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Group -> what -1 and what 1 stands for, per component."""

PROPRIOCEPTION = ("joint_position", "joint_velocity", "gripper_command", "command_error")
"""Sources that a robot measures about itself."""
TIP_AXES = {"position": ("x", "y", "z"), "height": ("z",)}
"""Sources that it knows of its tip, and the axes of the workspace that are their range."""


def make_tiny_checkpoint(
    folder: Path | str,
    *,
    cameras: Sequence[str],
    state: Ranges,
    action: Ranges,
    action_horizon: int,
    instructions: Sequence[str] | str,
    image_size: Size = (64, 64),
    chunk_horizon: int = CHUNK_HORIZON,
    max_dim: int = MAX_DIM,
    seed: int = 0,
) -> Path:
    """Write a checkpoint into a new or empty folder; return its absolute path.

    The same arguments give the same bytes. Tokenizer, image processor and backbone configuration
    are in its folder `tokenizer`.

    Args:
        folder: where.
        cameras: names of the images, in order.
        state, action: name -> (low, high) of each group, in order.
        action_horizon: steps of a chunk that the embodiment uses, up to `chunk_horizon`.
        instructions: what the tokenizer is trained on.
        image_size: (height, width) that images are resized to, multiples of 16.
        chunk_horizon: steps of the model's chunks. max_dim: components of its states and actions.
        seed: decides the weights.

    Raises:
        CheckpointError: the folder holds something, or an argument does not fit the model.
        MissingExtraError: lerobot, or what it needs, is not installed.
    """
    _check_arguments(cameras, {"state": state, "action": action}, max_dim, image_size)
    if not 1 <= action_horizon <= chunk_horizon:
        raise CheckpointError(
            f"action_horizon = {action_horizon}", expected=f"1 to {chunk_horizon} steps"
        )
    import_extra(MODEL_MODULE)  # before anything is written
    path = _empty_folder(folder)
    texts = [instructions] if isinstance(instructions, str) else list(instructions)
    with quiet_and_offline():
        make_tiny_tokenizer(path / "tokenizer", texts, WIDTH)
        _save_model(path, image_size, chunk_horizon, max_dim, seed)
    _write(path / "embodiment_id.json", {EMBODIMENT: EMBODIMENT_ID})
    _write(path / "statistics.json", {EMBODIMENT: {"state": _all(state), "action": _all(action)}})
    processor = {
        "modality_configs": {EMBODIMENT: _modalities(cameras, state, action, action_horizon)},
        "max_state_dim": max_dim,
        "max_action_dim": max_dim,
        "max_action_horizon": chunk_horizon,
        "use_percentiles": True,
        "clip_outliers": True,
        "use_relative_action": False,
        "formalize_language": True,
        "image_crop_size": list(_crop(image_size)),
        "image_target_size": list(image_size),
        "use_albumentations": False,
    }
    name = "Gr00tN1d7Processor"
    _write(
        path / "processor_config.json", {"processor_class": name, "processor_kwargs": processor}
    )
    return path


def make_tiny_checkpoint_for(
    contract: Contract, folder: Path | str, seed: int = 0, image_size: Size = (64, 64)
) -> Path:
    """Write a checkpoint that fits a task's contract; return its absolute path.

    Cameras are those that the contract observes, else the task's overview. Each float32 field
    that a robot measures about itself is a state group of the field's name, with the limits of
    its joints or the tip's workspace as range, -1 and 1 where it has none. Each action field is
    an action group, in +-scale; a gripper in +-1. The horizon is the contract's chunk, or 8 steps.

    Args:
        contract: of the task.
        folder, seed, image_size: see `make_tiny_checkpoint`.

    Raises:
        ContractError: chunks are longer than the model's.
        CheckpointError, MissingExtraError: see `make_tiny_checkpoint`.
    """
    if contract.chunk_size > CHUNK_HORIZON:
        raise ContractError(
            f"chunk_size = {contract.chunk_size}", expected=f"at most {CHUNK_HORIZON} for GR00T"
        )
    fields = [f for f in contract.state_fields if _is_proprioception(f)]
    cameras = [f.source.names[0] for f in contract.observation if f.source.kind == "camera"]
    size = max(contract.action_size, sum(field.size * field.history for field in fields))
    horizon = max(MINIMUM_HORIZON, contract.chunk_size)
    return make_tiny_checkpoint(
        folder,
        cameras=cameras or [DEFAULT_CAMERA],
        state={field.name: _state_range(field, contract) for field in fields},
        action={field.name: _action_range(field) for field in contract.action},
        action_horizon=horizon,
        instructions=contract.instruction or contract.task,
        image_size=image_size,
        chunk_horizon=horizon,
        max_dim=TINY_DIM if size <= TINY_DIM else MAX_DIM,
        seed=seed,
    )


def _is_proprioception(field: ObservationField) -> bool:
    source = field.source
    is_tip = source.names == (TIP,) and not source.relative_to
    return source.kind in PROPRIOCEPTION or (source.kind in TIP_AXES and is_tip)


def _state_range(field: ObservationField, contract: Contract) -> tuple[list[float], list[float]]:
    """Return low and high of a field in SI units, repeated over its history."""
    limits = {limit.name: limit for limit in contract.limits}
    low, high = [-1.0] * field.size, [1.0] * field.size
    for index, axis in enumerate(TIP_AXES.get(field.source.kind, ())):
        low[index], high[index] = contract.workspace.get(axis, (-1.0, 1.0))
    names = field.source.names if field.source.kind.startswith("joint_") else ()
    for index, name in enumerate(names):
        if name not in limits:
            continue
        limit = limits[name]
        low[index], high[index] = limit.lower, limit.upper
        if field.source.kind == "joint_velocity":
            low[index], high[index] = -limit.velocity, limit.velocity
    return low * field.history, high * field.history


def _action_range(field: ActionField) -> tuple[list[float], list[float]]:
    high = [1.0] * field.size if field.kind == "gripper" else [abs(s) for s in field.scale]
    return [-value for value in high], high


def _check_arguments(
    cameras: Sequence[str], modalities: Mapping[str, Ranges], max_dim: int, image_size: Size
) -> None:
    if not cameras or len(set(cameras)) != len(cameras):
        raise CheckpointError(f"cameras {list(cameras)}", expected="one or more, all different")
    for name, groups in modalities.items():
        for group, (low, high) in groups.items():
            if not low or len(low) != len(high) or not all(map(math.isfinite, (*low, *high))):
                raise CheckpointError(
                    f"{name} group '{group}' ranges from {list(low)} to {list(high)}",
                    expected="as many finite numbers, one per component",
                )
        size = sum(len(low) for low, _ in groups.values())
        if size > max_dim or (name == "action" and not size):
            raise CheckpointError(
                f"{name} groups have {size} components",
                expected=f"at most {max_dim}" + (", at least 1" if name == "action" else ""),
            )
    if any(edge % BLOCK or not BLOCK <= edge <= MAX_EDGE for edge in image_size):
        raise CheckpointError(
            f"image_size = {image_size}", expected=f"multiples of {BLOCK} up to {MAX_EDGE} pixels"
        )


def _empty_folder(folder: Path | str) -> Path:
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_empty = not any(path.iterdir())
    except OSError as problem:
        raise CheckpointError(f"{path} cannot be made: {problem.strerror}") from problem
    if not is_empty:
        raise CheckpointError(
            f"{path} is not empty", expected="a new folder", remedy="choose another, or empty it"
        )
    return path.resolve()


def _save_model(path: Path, image_size: Size, chunk_horizon: int, max_dim: int, seed: int) -> None:
    """Write config.json and the weights, in several shards as upstream's are."""
    classes = import_extra(MODEL_MODULE)
    attention = {
        "positional_embeddings": None,
        "num_attention_heads": 4,
        "attention_head_dim": WIDTH // 4,
        "dropout": 0.2,
        "final_dropout": True,
    }
    flow = {
        **attention,
        "num_layers": 4,
        "norm_type": "ada_norm",
        "output_dim": WIDTH,
        "interleave_self_attention": True,
    }
    config = classes.GR00TN17Config(
        model_name=str(path / "tokenizer"),
        backbone_embedding_dim=WIDTH,
        select_layer=3,  # above the two DeepStack layers, as in the real model
        hidden_size=WIDTH,
        input_embedding_dim=WIDTH,
        max_state_dim=max_dim,
        max_action_dim=max_dim,
        action_horizon=chunk_horizon,
        max_seq_len=128,
        model_dtype="float32",
        dtype="float32",
        image_crop_size=list(_crop(image_size)),
        image_target_size=list(image_size),
        use_albumentations_transforms=False,
        diffusion_model_cfg=flow,
        vl_self_attention_cfg={**attention, "num_layers": 1},
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws from torch's own generator
        torch.manual_seed(seed)
        model = classes.GR00TN17(
            config,
            load_backbone_weights=False,
            transformers_loading_kwargs={"local_files_only": True, "trust_remote_code": False},
        )
    _widen_distribution(model)
    model.save_pretrained(path, max_shard_size="2MB")
    written = json.loads((path / "config.json").read_text())
    # The path of the folder must not decide its bytes; the reader looks in `tokenizer` itself.
    written.update(architectures=["Gr00tN1d7"], model_name="tokenizer")
    _write(path / "config.json", written)


@torch.no_grad()
def _widen_distribution(model: torch.nn.Module) -> None:
    """Scale drawn weights from DRAWN_STD to 1 / sqrt(inputs), and embeddings to EMBEDDING_STD.

    DRAWN_STD is about that for the 2048 inputs of the real model. Of 64 inputs it would leave a
    sixth per layer, so that nothing of an image reached an action, and nothing was learned.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for name, weight in model.named_parameters():  # each once, though some have two names
        if weight.dim() < 2:
            continue
        if id(weight) in embeddings:
            std = EMBEDDING_STD
        elif name.endswith(".W"):  # (embodiments, inputs, outputs)
            std = weight.shape[1] ** -0.5
        else:
            std = weight[0].numel() ** -0.5
        weight.mul_(std / DRAWN_STD)


def _crop(image_size: Size) -> Size:
    """Return the crop, the share of the image that the real model's has."""
    rows, columns = (
        round(edge * crop / target)
        for edge, crop, target in zip(
            image_size, DEFAULT_CROP_SIZE, DEFAULT_TARGET_SIZE, strict=True
        )
    )
    return rows, columns


def _all(groups: Ranges) -> dict[str, dict[str, list[float]]]:
    """Return the statistics of groups: percentiles and extremes are the range."""
    return {
        name: {
            "min": list(map(float, low)),
            "max": list(map(float, high)),
            "q01": list(map(float, low)),
            "q99": list(map(float, high)),
            "mean": [(a + b) / 2 for a, b in zip(low, high, strict=True)],
            "std": [(b - a) / 4 for a, b in zip(low, high, strict=True)],
        }
        for name, (low, high) in groups.items()
    }


def _modalities(
    cameras: Sequence[str], state: Ranges, action: Ranges, action_horizon: int
) -> dict[str, Any]:
    representation = {
        "rep": "ABSOLUTE",
        "type": "NON_EEF",
        "format": "DEFAULT",
        "state_key": None,
    }
    return {
        "video": {"modality_keys": list(cameras), "delta_indices": [0]},
        "state": {"modality_keys": list(state), "delta_indices": [0]},
        "action": {
            "modality_keys": list(action),
            "delta_indices": list(range(action_horizon)),
            "action_configs": [representation] * len(action),
        },
        "language": {
            "modality_keys": ["annotation.human.task_description"],
            "delta_indices": [0],
        },
    }


def _write(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n")
