"""LeRobot's format, v3: what a recording's features are called there, and its writing.

`observation.state` is the contract's float32 fields side by side, `observation.images.<camera>`
its images, `action` what the demonstrator wanted in SI units, as those who train upstream expect,
`label` the same in shares of the action's scale, which is what the policy is taught, and
`executed_action` what was sent, with noise, in such shares too. Images are stored as PNG inside
the Parquet files, so none is changed, or as lossy videos where that is asked for.

`meta/modality.json` names the parts of states and actions as GR00T N1.7's own fine-tuning wants it
(NVIDIA/Isaac-GR00T, getting_started/data_preparation.md); `meta/grpo_ros.json` is the manifest.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo_ros.contract import Contract, ObservationField
from grpo_ros.errors import DemonstrationError, MissingExtraError
from grpo_ros.extras import import_extra, quiet_and_offline
from grpo_ros.files import write_atomically
from grpo_ros.training.demonstrations.manifest import Manifest, Origin, file_record
from grpo_ros.training.demonstrations.matching import action_names, image_fields, state_names
from grpo_ros.training.demonstrations.recording import Episode, Recording

INFO, MANIFEST, MODALITY = "meta/info.json", "meta/grpo_ros.json", "meta/modality.json"
STATE, ACTION, LABEL, EXECUTED = "observation.state", "action", "label", "executed_action"
IMAGES = "observation.images."
CODEC, QUALITY = "h264", 15
"""Of videos; a constant rate factor of 15 is hardly told from the original by eye."""
PURPOSE = "A LeRobotDataset"
PACKAGES = ("lerobot", "datasets", "pyarrow", "av")
DATA = ("data/**/*.parquet", "videos/**/*.mp4", "meta/episodes/**/*.parquet", "meta/tasks.parquet")


def is_installed() -> bool:
    """Return whether LeRobot and what its datasets need are there; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def data_files(folder: Path) -> list[Path]:
    """Return the files of a dataset that decide what is read from it."""
    found = [path for pattern in DATA for path in folder.glob(pattern)]
    return [folder / INFO, *found]


def camera_key(field: ObservationField) -> str:
    """Return the feature of an image field: its camera's name, without which its own."""
    return IMAGES + (field.source.names[0] if field.source.names else field.name)


def action_scale(contract: Contract) -> Tensor:
    """Return the SI value of an action 1, (A,) float32."""
    return torch.tensor([scale for field in contract.action for scale in field.scale])


def features(contract: Contract, video: bool = False) -> dict[str, dict[str, Any]]:
    """Return LeRobot's description of what a contract observes and commands.

    Raises:
        DemonstrationError: an image is not (height, width, 3), or two have one camera.
    """
    names = [name for field in state_names(contract).values() for name in field]
    found = {STATE: _vector(names)} if names else {}
    for field in image_fields(contract):
        key = camera_key(field)
        if len(field.shape) != 3 or field.shape[2] != 3 or key in found:
            raise DemonstrationError(
                f"image '{field.name}' {field.shape} of camera '{key.removeprefix(IMAGES)}'",
                expected="(height, width, 3), one image of a camera",
                remedy="--format episodes",
            )
        axes = ["height", "width", "channels"]
        dtype = "video" if video else "image"
        found[key] = {"dtype": dtype, "shape": field.shape, "names": axes}
    return found | {
        key: _vector(list(action_names(contract))) for key in (ACTION, LABEL, EXECUTED)
    }


def modality(contract: Contract) -> dict[str, dict[str, Any]]:
    """Return meta/modality.json: slices of state and action by field, cameras, instruction."""
    states = {name: len(names) for name, names in state_names(contract).items()}
    cameras = [camera_key(field) for field in image_fields(contract)]
    return {
        "state": _slices(states),
        "action": _slices({field.name: field.size for field in contract.action}),
        "video": {key.removeprefix(IMAGES): {"original_key": key} for key in cameras},
        "annotation": {"human.task_description": {"original_key": "task_index"}},
    }


def check_can_write(contract: Contract, video: bool) -> None:
    """Check that the format can hold what a contract observes, and that LeRobot is installed.

    Raises:
        MissingExtraError: it is not.
        DemonstrationError: the format cannot.
    """
    if not is_installed():
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        raise MissingExtraError(
            f"{PURPOSE} needs {', '.join(missing)}",
            remedy="`make setup EXTRAS=gr00t`, or --format episodes",
        )
    rate = contract.control_rate_hz
    if rate != int(rate):
        raise DemonstrationError(
            f"{rate:g} control steps per second",
            expected="a whole number in a LeRobotDataset",
            remedy="--format episodes",
        )
    features(contract, video)


def write(
    folder: Path, recording: Recording, contract: Contract, origin: Origin, video: bool
) -> None:
    """Write a recording as a new folder.

    Raises:
        MissingExtraError: LeRobot is not installed.
        DemonstrationError: the format cannot hold this, or LeRobot refuses it.
    """
    described = features(contract, video)
    with opened() as lerobot:
        try:
            dataset = lerobot.LeRobotDataset.create(
                f"grpo_ros/{contract.task}",
                fps=int(contract.control_rate_hz),
                features=described,
                root=folder,
                robot_type=contract.embodiment,
                use_videos=video,
                rgb_encoder=_encoder() if video else None,
            )
            for episode in recording.episodes:
                for frame in _frames(episode, contract):
                    dataset.add_frame({**frame, "task": contract.instruction})
                dataset.save_episode(parallel_encoding=False)
            dataset.finalize()
        except (ValueError, RuntimeError, NotImplementedError) as problem:
            raise DemonstrationError(
                f"LeRobot cannot write this recording: {problem}", remedy="--format episodes"
            ) from problem
    write_atomically(folder / MODALITY, (json.dumps(modality(contract), indent=1) + "\n").encode())
    manifest = Manifest(
        contract,
        contract.sha256,
        len(recording.episodes),
        recording.num_steps,
        recording.attempts,
        origin,
        {str(path.relative_to(folder)): file_record(path) for path in data_files(folder)},
    )
    write_atomically(folder / MANIFEST, manifest.to_json())


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Give LeRobot's module of datasets, kept from the network and from progress bars.

    Raises:
        MissingExtraError: it is not installed.
    """
    bars = import_extra("datasets.utils.logging", PURPOSE)
    module = import_extra("lerobot.datasets.lerobot_dataset", PURPOSE)
    video = import_extra("av.logging", PURPOSE)
    video.set_libav_level(video.ERROR)
    had_bars = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with quiet_and_offline():
            yield module
    finally:
        if had_bars:
            bars.enable_progress_bar()


def _encoder() -> Any:
    """Return the video encoder: H.264, which every reader of such datasets decodes."""
    return import_extra("lerobot.configs", PURPOSE).RGBEncoderConfig(vcodec=CODEC, crf=QUALITY)


def _frames(episode: Episode, contract: Contract) -> Iterator[dict[str, Any]]:
    """Yield LeRobot's features of each step."""
    columns: dict[str, Any] = {}
    if states := [episode.obs[name].flatten(1) for name in state_names(contract)]:
        columns[STATE] = torch.cat(states, dim=1)
    for field in image_fields(contract):
        columns[camera_key(field)] = episode.obs[field.name]
    columns[ACTION] = episode.action * action_scale(contract)
    columns[LABEL], columns[EXECUTED] = episode.action, episode.executed
    arrays = {name: np.ascontiguousarray(value.numpy()) for name, value in columns.items()}
    for step in range(episode.num_steps):
        yield {name: value[step] for name, value in arrays.items()}


def _vector(names: list[str]) -> dict[str, Any]:
    return {"dtype": "float32", "shape": (len(names),), "names": names}


def _slices(sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    found, start = {}, 0
    for name, size in sizes.items():
        found[name] = {"start": start, "end": start + size}
        start += size
    return found
