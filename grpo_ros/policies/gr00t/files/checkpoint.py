"""Gr00tCheckpoint: what a GR00T N1.7 checkpoint in the upstream layout says about itself.

A folder holds config.json, model-*.safetensors with their index, processor_config.json,
statistics.json and embodiment_id.json. Tokenizer and image processor are the backbone's and stand
in a folder of their own. Reading takes JSON and the headers of safetensors alone: nothing is
unpickled, downloaded or run, and no package of the extra is needed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_ros.errors import CheckpointError, nearest
from grpo_ros.policies.gr00t.files.checkpoint_folder import INDEX, CheckpointFolder, Shapes
from grpo_ros.policies.gr00t.files.image_settings import (
    ImageGeometry,
    ImageProcessorSettings,
    read_geometry,
    read_image_processor,
)
from grpo_ros.policies.gr00t.files.json_value import JsonValue
from grpo_ros.policies.gr00t.files.modalities import (
    ActionGroup,
    StateGroup,
    read_action_groups,
    read_state_groups,
)

MODEL_TYPES = ("gr00tn1d7", "gr00t_n1d7", "gr00t_n1_7", "gr00tn17")
"""What GR00T N1.7 is called in config.json, in lower case."""
COSMOS = "nvidia/Cosmos-Reason2-2B"
"""The backbone whose configuration LeRobot has built in."""
BACKBONE_TYPE = "qwen3_vl"
LAYER_COUNTS = ("diffusion_model_cfg", "vl_self_attention_cfg")
MAX_LAYERS = 512
OTHER_CODE = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation")
"""Keys that would have other code loaded or run than the model's own."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Gr00tCheckpoint:
    """A checkpoint, as one of its embodiments uses it.

    Attributes:
        path: of the checkpoint, absolute.
        tokenizer_path: of tokenizer, image processor and backbone configuration, absolute.
        embodiment, embodiment_id: tag, and the number that the model knows it by.
        cameras: names of the images, in order.
        video_history, state_history: how many past images and states the model takes.
        state, action: groups, in order; there may be no state.
        action_horizon: steps of a chunk that the embodiment uses.
        num_denoising_steps: of the flow, from noise to chunk.
        formalize_language: instructions lose capitals and punctuation.
        clip_outliers: normalised states are held to [-1, 1].
        geometry: from a camera's image to the processor's.
        image_processor: from that image to patches.
        backbone: nvidia/Cosmos-Reason2-2B, or empty where tokenizer_path has its configuration.
        model_config: config.json.
        shapes: of all tensors, by name.
        shards: the files with the weights, absolute.
    """

    path: Path
    tokenizer_path: Path
    embodiment: str
    embodiment_id: int
    cameras: tuple[str, ...]
    video_history: int
    state_history: int
    state: tuple[StateGroup, ...]
    action: tuple[ActionGroup, ...]
    action_horizon: int
    num_denoising_steps: int
    formalize_language: bool
    clip_outliers: bool
    geometry: ImageGeometry
    image_processor: ImageProcessorSettings
    backbone: str
    model_config: Mapping[str, Any]
    shapes: Shapes
    shards: tuple[Path, ...]

    @property
    def state_size(self) -> int:
        """Components of the state that the embodiment uses."""
        return sum(group.size for group in self.state)

    @property
    def action_size(self) -> int:
        """Components of an action that the embodiment uses."""
        return sum(group.size for group in self.action)

    def warn_of_other_steps(self, num_steps: int) -> None:
        """Say so where a policy's flow takes other steps than the checkpoint's own."""
        if num_steps != self.num_denoising_steps:
            log.warning(
                "gr00t.num_steps = %d, and %s takes %d denoising steps",
                num_steps,
                self.path,
                self.num_denoising_steps,
            )


def read_checkpoint(
    path: Path | str, tokenizer_path: Path | str = "", embodiment: str = "new_embodiment"
) -> Gr00tCheckpoint:
    """Read what a checkpoint says, after checking that all of it fits together.

    Args:
        path: of the checkpoint's folder.
        tokenizer_path: of the backbone's folder; empty: `tokenizer` in the checkpoint.
        embodiment: tag of the robot, a key of the checkpoint's embodiment_id.json.

    Raises:
        CheckpointError: a path is no folder or a name on a hub, a file is missing, damaged or
            leads elsewhere, a key is missing or wrong, or two of them do not agree.
    """
    folder = CheckpointFolder(path, "checkpoint")
    config = _model_config(folder)
    processor = folder.json("processor_config.json")["processor_kwargs"]
    tag_id = _embodiment_id(folder, processor, embodiment, config)
    modality = processor["modality_configs"][embodiment]
    tokenizer = _tokenizer_folder(folder, tokenizer_path)
    chunk_horizon = config["action_horizon"].integer(1, 4096)
    state_history = config.optional("state_history_length", 1).integer(1, 64)
    if modality.has("state"):
        _num_steps(modality["state"], state_history, state_history)
    max_dims = [_agreed(config, processor, f"max_{name}_dim") for name in ("state", "action")]
    state, action = _groups(folder, processor, embodiment, *max_dims)
    return Gr00tCheckpoint(
        path=folder.path,
        tokenizer_path=tokenizer.path,
        embodiment=embodiment,
        embodiment_id=tag_id,
        cameras=_cameras(modality),
        video_history=_num_steps(modality["video"]),
        state_history=state_history,
        state=state,
        action=action,
        action_horizon=_num_steps(modality["action"], maximum=chunk_horizon),
        num_denoising_steps=config.optional("num_inference_timesteps", 4).integer(1, 1000),
        formalize_language=processor.optional("formalize_language", True).flag(),
        clip_outliers=processor.optional("clip_outliers", True).flag(),
        geometry=read_geometry(processor),
        image_processor=read_image_processor(tokenizer.json("preprocessor_config.json")),
        backbone=_backbone(config, tokenizer),
        model_config=config.mapping(),
        shapes=folder.shapes(),
        shards=tuple(folder.file(name) for name in sorted(folder.shards())),
    )


def _groups(
    folder: CheckpointFolder,
    processor: JsonValue,
    embodiment: str,
    max_state_dim: int,
    max_action_dim: int,
) -> tuple[tuple[StateGroup, ...], tuple[ActionGroup, ...]]:
    """Return the groups of state and action, with their ranges out of statistics.json."""
    statistics = folder.json("statistics.json")
    if not statistics.has(embodiment):
        raise CheckpointError(
            f"{statistics.where} has nothing about embodiment '{embodiment}'",
            expected="its ranges, by which states and actions are normalised",
            remedy=f"{nearest(embodiment, statistics.mapping())}; take a checkpoint that was "
            "trained for this embodiment",
        )
    _refuse_sincos(processor)
    modality = processor["modality_configs"][embodiment]
    use_percentiles = processor.optional("use_percentiles", False).flag()
    ranges = statistics[embodiment]
    state = read_state_groups(_state(modality), ranges, use_percentiles, max_state_dim)
    action = read_action_groups(
        modality["action"],
        ranges,
        use_percentiles,
        processor.optional("use_relative_action", False).flag(),
        max_action_dim,
        [group.name for group in state],
    )
    return state, action


def _model_config(folder: CheckpointFolder) -> JsonValue:
    """Return config.json of a GR00T N1.7 in the upstream layout."""
    config = folder.json("config.json")
    if config.has("type"):
        raise CheckpointError(
            f"{folder.path} is a LeRobot policy (config.json has 'type')",
            expected=f"the upstream layout: config.json, {INDEX}, processor_config.json, "
            "statistics.json, embodiment_id.json",
            remedy="give the GR00T checkpoint that it was made from (its base_model_path)",
        )
    names = [config.optional("model_type", "none").text()]
    names += [item.text() for item in config.optional("architectures", [])]
    if not any(name.lower().replace("-", "_") in MODEL_TYPES for name in names):
        raise CheckpointError(
            f"{folder.path} is a {' / '.join(names)}",
            expected="GR00T N1.7 (model_type Gr00tN1d7)",
            remedy="take a checkpoint of nvidia/GR00T-N1.7-3B or one fine-tuned from it",
        )
    for name in LAYER_COUNTS:
        if config.has(name):
            config[name].optional("num_layers", 0).integer(0, MAX_LAYERS)
    return config


def _embodiment_id(
    folder: CheckpointFolder, processor: JsonValue, embodiment: str, config: JsonValue
) -> int:
    """Return the number of an embodiment tag, which has to have a modality configuration."""
    ids = folder.json("embodiment_id.json")
    known = set(processor["modality_configs"].mapping()) & set(ids.mapping())
    if embodiment not in known:
        raise CheckpointError(
            f"embodiment '{embodiment}' is not in {folder.path}",
            expected="a tag of embodiment_id.json and of processor_config.json's modality_configs",
            remedy=nearest(embodiment, known or ids.mapping()),
        )
    maximum = config.optional("max_num_embodiments", 32).integer(1, 4096) - 1
    return ids[embodiment].integer(0, maximum)


def _state(modality: JsonValue) -> JsonValue:
    """Return the state's modality; one without groups where the embodiment has none."""
    if modality.has("state"):
        return modality["state"]
    return JsonValue({"modality_keys": []}, f"{modality.where} state")


def _cameras(modality: JsonValue) -> tuple[str, ...]:
    names = modality["video"]["modality_keys"]
    if not names.names():
        raise names.refuse("at least one camera")
    return names.names()


def _num_steps(modality: JsonValue, minimum: int = 1, maximum: int = 64) -> int:
    """Return how many steps a modality has."""
    steps = modality["delta_indices"]
    if not minimum <= len(list(steps)) <= maximum:
        raise steps.refuse(f"{minimum} to {maximum} steps")
    return len(list(steps))


def _agreed(config: JsonValue, processor: JsonValue, key: str) -> int:
    """Return an integer on which model and processor have to agree."""
    value = config[key].integer(1, 4096)
    if processor.has(key) and processor[key].integer(1, 4096) != value:
        raise processor[key].refuse(f"{value}, as config.json says")
    return value


def _refuse_sincos(processor: JsonValue) -> None:
    if processor.optional("apply_sincos_state_encoding", False).flag():
        raise processor["apply_sincos_state_encoding"].refuse(
            "false", remedy="use a checkpoint whose states are normalised by their range"
        )


def _tokenizer_folder(folder: CheckpointFolder, path: Path | str) -> CheckpointFolder:
    """Return the folder of tokenizer and image processor."""
    if not str(path) and not folder.has("tokenizer"):
        raise CheckpointError(
            f"{folder.path} has no folder 'tokenizer', and no tokenizer_path is given",
            expected=f"a folder with the tokenizer and the image processor of {COSMOS}",
            remedy=f"`hf download {COSMOS} --local-dir FOLDER --exclude '*.safetensors'`, then "
            "give its path as tokenizer_path",
        )
    tokenizer = CheckpointFolder(str(path) or folder.path / "tokenizer", "tokenizer")
    tokenizer.file("tokenizer.json")
    _refuse_other_code(tokenizer.json("tokenizer_config.json"))
    return tokenizer


def _backbone(config: JsonValue, tokenizer: CheckpointFolder) -> str:
    """Return the backbone's name where LeRobot has its configuration; check the file otherwise."""
    if config.optional("model_name", COSMOS).text().rstrip("/") == COSMOS:
        return COSMOS
    backbone = tokenizer.json("config.json")
    if backbone["model_type"].text() != BACKBONE_TYPE:
        raise backbone["model_type"].refuse(BACKBONE_TYPE)
    _refuse_other_code(backbone)
    for section, key in (("text_config", "num_hidden_layers"), ("vision_config", "depth")):
        _refuse_other_code(backbone[section])
        backbone[section][key].integer(1, MAX_LAYERS)
    return ""


def _refuse_other_code(value: JsonValue) -> None:
    for key in OTHER_CODE:
        if value.has(key):
            raise value[key].refuse("no such key: only the model's own code is run")
