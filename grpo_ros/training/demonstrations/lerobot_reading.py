"""Reading of a LeRobotDataset, recorded here or by somebody else.

A contract's fields are found by names: the components of its float32 fields among the names of
`observation.*`, its images as `observation.images.<camera>` or `observation.images.<field>`, its
action among the names of `action`. Whoever recorded it, what does not fit is named.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grpo_ros.contract import Contract, ObservationField
from grpo_ros.errors import DemonstrationError
from grpo_ros.extras import import_extra
from grpo_ros.training.demonstrations import lerobot_format as names
from grpo_ros.training.demonstrations.manifest import check_files, read_manifest
from grpo_ros.training.demonstrations.matching import (
    action_names,
    check_contract,
    check_episode,
    image_fields,
    state_names,
)
from grpo_ros.training.demonstrations.recording import Episode, Recording

VERSION = "v3."
TOLERANCE = 1e-4
"""By how much of its range an action may lie beyond it: rounding, no other unit."""
COPY_AGAIN = "copy the dataset again"
UNEDITED = f"delete {names.MANIFEST} if the dataset was edited since it was recorded"
Columns = list[tuple[str, int]]
"""Feature and component, for each component of a contract."""


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Where a contract's fields are in a dataset: feature and component of each, and images."""

    state: Mapping[str, Columns]
    images: Mapping[str, str]
    action: Columns
    is_label: bool


def read(folder: Path, contract: Contract) -> Recording:
    """Return the episodes of a LeRobotDataset, with what the contract observes.

    Of several task texts those episodes are read whose text is the instruction.

    Raises:
        DemonstrationError: it is damaged, of another version, or does not fit; names what.
        MissingExtraError: LeRobot is not installed.
    """
    attempts = None
    if (folder / names.MANIFEST).is_file():
        manifest = read_manifest(folder / names.MANIFEST)
        check_contract(folder, manifest.contract, contract)
        check_files(folder, manifest.files, UNEDITED)
        attempts = manifest.attempts
    info = _info(folder)
    plan = _plan(folder, info, contract)
    with names.opened() as lerobot:
        _check_tables(folder, info)
        try:
            dataset = lerobot.LeRobotDataset(
                f"grpo_ros/{contract.task}", root=folder, return_uint8=True
            )
            episodes = _episodes(folder, dataset, plan, contract)
        except DemonstrationError:
            raise
        except Exception as problem:  # of LeRobot, datasets, Arrow, PIL, FFmpeg: no common base
            raise DemonstrationError(
                f"{folder} cannot be read by LeRobot: {type(problem).__name__}: {problem}",
                remedy=COPY_AGAIN,
            ) from problem
    return Recording(episodes, attempts or len(episodes))


def _info(folder: Path) -> dict[str, Any]:
    """Return meta/info.json, with all that is used of it."""
    path = folder / names.INFO
    try:
        info = json.loads(path.read_text())
        version, described = str(info["codebase_version"]), dict(info["features"])
        for feature in described.values():
            tuple(feature["shape"]), str(feature["dtype"])
        float(info["fps"]), int(info["total_frames"]), int(info["total_episodes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise DemonstrationError(
            f"{path} cannot be read: {type(problem).__name__}: {problem}",
            expected="the description of a LeRobotDataset",
            remedy=COPY_AGAIN,
        ) from None
    if not version.startswith(VERSION):
        raise DemonstrationError(
            f"{path} is of version {version}",
            expected=f"{VERSION}x",
            remedy="convert it: python -m lerobot.scripts.convert_dataset_v21_to_v30",
        )
    if info["total_frames"] < 1 or info["total_episodes"] < 1:
        raise DemonstrationError(f"{folder} is empty", expected="at least one episode")
    return {**info, "features": described}


def _check_tables(folder: Path, info: Mapping[str, Any]) -> None:
    """Check that all tables and videos are there: for what is missing LeRobot asks the network."""
    parquet = import_extra("pyarrow.parquet", names.PURPOSE)
    paths, rows = [folder / "meta" / "tasks.parquet"], 0
    for part in (folder / "data", folder / "meta" / "episodes"):
        found = sorted(part.glob("*/*.parquet"))
        paths += found or [part / "chunk-000" / "file-000.parquet"]
    for path in paths:
        try:
            num_rows = parquet.read_metadata(path).num_rows
        except (OSError, ValueError) as problem:  # Arrow's errors are of these
            raise DemonstrationError(
                f"{path} is damaged or absent: {problem}",
                expected="a Parquet file",
                remedy=COPY_AGAIN,
            ) from None
        rows += num_rows if path.is_relative_to(folder / "data") else 0
    if rows != info["total_frames"]:
        raise DemonstrationError(
            f"{folder / 'data'} holds {rows} steps",
            expected=f"{info['total_frames']}, as {names.INFO} says",
            remedy=COPY_AGAIN,
        )
    for key, feature in info["features"].items():
        if feature["dtype"] == "video" and not any((folder / "videos" / key).glob("**/*.mp4")):
            raise DemonstrationError(f"{folder / 'videos' / key} is absent", remedy=COPY_AGAIN)


# ---------------------------------------------------------------- what is where


def _plan(folder: Path, info: Mapping[str, Any], contract: Contract) -> _Plan:
    """Match features with a contract's fields; raise DemonstrationError naming all differences."""
    described, found = info["features"], []
    if float(info["fps"]) != contract.control_rate_hz:
        found.append(f"{info['fps']} steps per second, wanted {contract.control_rate_hz:g}")
    there = _observed(described)
    state = {}
    for field, wanted in state_names(contract).items():
        if missing := [name for name in wanted if name not in there]:
            found.append(f"no {', '.join(missing)} in the names of {names.STATE}")
        else:
            state[field] = [there[name] for name in wanted]
    images = {}
    for image in image_fields(contract):
        key, problem = _image(described, image)
        images[image.name] = key
        found += [problem] if problem else []
    wanted = action_names(contract)
    is_label = set(_names(described.get(names.LABEL, {}))) == set(wanted)
    key = names.LABEL if is_label else names.ACTION
    given = _names(described.get(key, {}))
    action = [(key, given.index(name)) for name in wanted if name in given]
    if sorted(given) != sorted(wanted):
        found.append(f"{key} has names {', '.join(given) or 'none'}; wanted {', '.join(wanted)}")
    if found:
        raise DemonstrationError(
            f"{folder} does not fit the task: {'; '.join(found)}",
            remedy=f"rename in {names.INFO}, where only names differ; the names are those that "
            "grpo-ros demonstrate writes",
        )
    return _Plan(state, images, action, is_label)


def _observed(described: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return component name -> feature and column, of all vectors that are observed."""
    found: dict[str, tuple[str, int]] = {}
    for key in sorted(described, key=lambda key: key != names.STATE):
        if not key.startswith("observation.") or len(described[key]["shape"]) != 1:
            continue
        for column, name in enumerate(_names(described[key])):
            found.setdefault(name, (key, column))
    return found


def _names(feature: Mapping[str, Any]) -> list[str]:
    """Return the component names of a vector; LeRobot has them as a list or by one group."""
    given = feature.get("names") or []
    if isinstance(given, Mapping):
        given = list(itertools.chain.from_iterable(given.values()))
    return [str(name) for name in given]


def _image(described: Mapping[str, Any], field: ObservationField) -> tuple[str, str]:
    """Return the feature of an image, and what is wrong with it."""
    keys = names.camera_key(field), f"{names.IMAGES}{field.name}"
    key = next((key for key in keys if key in described), keys[0])
    if key not in described:
        has = [other for other in described if other.startswith(names.IMAGES)]
        return key, f"no {key} (has {', '.join(has) or 'no images'})"
    feature = described[key]
    shape = tuple(feature["shape"])
    if _names(feature)[:1] in (["channels"], ["channel"]):
        shape = shape[1:] + shape[:1]
    if feature["dtype"] not in ("image", "video") or shape != field.shape:
        return key, f"{key} is {feature['dtype']} {shape}, wanted an image {field.shape}"
    return key, ""


# ---------------------------------------------------------------- the data


def _episodes(folder: Path, dataset: Any, plan: _Plan, contract: Contract) -> tuple[Episode, ...]:
    """Return the episodes, checked."""
    table = dataset.hf_dataset.with_format("numpy")
    numbers = {key: torch.from_numpy(np.array(table[key][:])) for key in _vectors(plan, dataset)}
    rows = _rows(folder, dataset, table, contract)
    action, executed = _actions(folder, plan, numbers, contract)
    state = {name: _picked(numbers, columns) for name, columns in plan.state.items()}
    episodes = []
    for index, (first, last) in enumerate(rows):
        obs = {}
        for field in contract.observation:
            if field.name in state:
                obs[field.name] = state[field.name][first:last].reshape(-1, *field.shape).clone()
            else:
                obs[field.name] = _images(dataset, plan.images[field.name], first, last)
        episode = Episode(obs, action[first:last].clone(), executed[first:last].clone())
        check_episode(folder, index, episode, contract)
        episodes.append(episode)
    return tuple(episodes)


def _vectors(plan: _Plan, dataset: Any) -> list[str]:
    columns = [*itertools.chain.from_iterable(plan.state.values()), *plan.action]
    keys = dict.fromkeys(key for key, _ in columns)
    if names.EXECUTED in dataset.features:
        keys[names.EXECUTED] = None
    return list(keys)


def _picked(numbers: Mapping[str, Tensor], columns: Columns) -> Tensor:
    """Return the (F, n) float32 numbers of columns."""
    picked = [numbers[key].reshape(len(numbers[key]), -1)[:, column] for key, column in columns]
    return torch.stack(picked, dim=1).float()


def _rows(folder: Path, dataset: Any, table: Any, contract: Contract) -> list[tuple[int, int]]:
    """Return first row and end of each episode whose task is the contract's."""
    indices = np.array(table["episode_index"][:])
    starts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(indices))), len(indices)]
    spans = list(itertools.pairwise(starts))
    tasks = np.array(table["task_index"][:])
    texts = [str(dataset.meta.tasks.iloc[int(tasks[first])].name) for first, _ in spans]
    if len(set(texts)) == 1:
        return spans
    if contract.instruction not in texts:
        raise DemonstrationError(
            f"{folder} holds the tasks {', '.join(repr(text) for text in sorted(set(texts)))}",
            expected=f"one task, or {contract.instruction!r} among them",
            remedy="keep the episodes of one: lerobot-edit-dataset",
        )
    is_wanted: Sequence[bool] = [text == contract.instruction for text in texts]
    return list(itertools.compress(spans, is_wanted))


def _actions(
    folder: Path, plan: _Plan, numbers: Mapping[str, Tensor], contract: Contract
) -> tuple[Tensor, Tensor]:
    """Return what is cloned and what was executed, (F, A) each, in shares of the scale."""
    action = _picked(numbers, plan.action)
    if not plan.is_label:
        action = action / names.action_scale(contract)
        clip = torch.tensor([field.clip for field in contract.action for _ in field.names])
        beyond = ~(action.abs() <= clip * (1.0 + TOLERANCE)) & action.isfinite()
        if bool(beyond.any()):
            row, column = (int(index) for index in beyond.nonzero()[0])
            name = action_names(contract)[column]
            limit = float((clip * names.action_scale(contract))[column])
            worst = float(numbers[plan.action[column][0]][:, plan.action[column][1]].abs().max())
            raise DemonstrationError(
                f"{folder}: action '{name}' is up to {worst:g} (first beyond in row {row})",
                expected=f"at most {limit:g}, in SI units per control step, as the task commands",
                remedy="convert the actions, or train with a larger task.step_m or task.step_rad",
            )
        action = torch.where(beyond | ~action.isfinite(), action, action.clamp(-clip, clip))
    executed = numbers.get(names.EXECUTED)
    if executed is None or executed.reshape(len(action), -1).shape != action.shape:
        return action, action
    return action, executed.reshape(action.shape).float()


def _images(dataset: Any, key: str, first: int, last: int) -> Tensor:
    """Return the images of rows as (T, height, width, 3) uint8."""
    if dataset.features[key]["dtype"] == "video":
        return torch.stack([dataset[row][key] for row in range(first, last)]).permute(0, 2, 3, 1)
    rows = dataset.hf_dataset.with_format(None).select_columns([key]).select(range(first, last))
    return torch.from_numpy(np.stack([np.asarray(row[key].convert("RGB")) for row in rows]))
