"""Embodiment: which of a GR00T checkpoint's inputs and outputs is what of a contract.

A checkpoint has cameras, and groups of states and of actions with the range that its statistics
map to [-1, 1]. A contract has fields. They are matched by name and size, in SI units.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError, nearest
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.gr00t.files.checkpoint import Gr00tCheckpoint

ENTRY = re.compile(r"(\w+)=(\w+)(?:\[(\d+):(\d+)\])?")


@dataclasses.dataclass(frozen=True)
class Scale:
    """x -> factor x + offset, a component each."""

    factor: tuple[float, ...]
    offset: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Embodiment:
    """A checkpoint's embodiment in terms of a contract.

    Attributes:
        images: the contract's image fields, in the order of the checkpoint's cameras.
        states: the contract's state fields that are looked at, in the contract's order.
        state_columns: (S,) where each component of the checkpoint's state is among the components
            of those fields, side by side.
        state_scale: from the contract's values to the checkpoint's, which lie in [-1, 1].
        action_columns: (A,) where each component of the contract's action is in the checkpoint's.
        action_scale: from the checkpoint's action components to the contract's, in the contract's
            order.
    """

    images: tuple[str, ...]
    states: tuple[str, ...]
    state_columns: tuple[int, ...]
    state_scale: Scale
    action_columns: tuple[int, ...]
    action_scale: Scale


def match(checkpoint: Gr00tCheckpoint, contract: Contract, config: Gr00tConfig) -> Embodiment:
    """Return the embodiment.

    Raises:
        ContractError: a camera, a group or a field has no counterpart or another size, or the
            checkpoint's actions mean something that no contract's do.
    """
    if contract.chunk_size > checkpoint.action_horizon:
        raise ContractError(
            f"chunks of {contract.chunk_size} actions",
            expected=f"at most {checkpoint.action_horizon}, the checkpoint's action horizon",
            remedy="lower task.chunk_size",
        )
    if checkpoint.video_history > 1 or checkpoint.state_history > 1:
        raise ContractError(
            f"{checkpoint.path} takes {checkpoint.video_history} images of each camera and "
            f"{checkpoint.state_history} states",
            expected="the present ones alone",
        )
    images = _match_images(checkpoint, contract, config)
    states, columns, state_scale = _match_states(checkpoint, contract, config)
    action_columns, action_scale = _match_actions(checkpoint, contract, config)
    return Embodiment(images, states, columns, state_scale, action_columns, action_scale)


def _match_images(
    checkpoint: Gr00tCheckpoint, contract: Contract, config: Gr00tConfig
) -> tuple[str, ...]:
    fields = {
        field.name: field
        for field in contract.observation
        if field.source.kind == "camera" and field.dtype == "uint8"
    }
    named = _entries(config.cameras, checkpoint.cameras, "cameras")
    images = []
    for camera in checkpoint.cameras:
        name = named[camera][0] if camera in named else camera
        name = name if name in fields else f"{name}_image"
        if name not in fields:
            raise ContractError(
                f"the checkpoint's camera '{camera}' is no image of the contract, which has "
                f"{sorted(fields) or 'none'}",
                expected=f"an image field '{camera}' or '{camera}_image'",
                remedy=f"task.cameras:=[overview] observes one; gr00t.cameras:=[{camera}=FIELD] "
                "says which",
            )
        images.append(name)
    if len(set(images)) < len(images):
        raise ContractError(f"two of the checkpoint's cameras are one image: {images}")
    return tuple(images)


def _match_states(
    checkpoint: Gr00tCheckpoint, contract: Contract, config: Gr00tConfig
) -> tuple[tuple[str, ...], tuple[int, ...], Scale]:
    fields = {field.name: field for field in contract.state_fields if field.history == 1}
    named = _entries(config.state, [group.name for group in checkpoint.state], "state")
    parts: list[tuple[str, int]] = []  # field and component of each of the checkpoint's
    factor: list[float] = []
    offset: list[float] = []
    for group in checkpoint.state:
        name, first, last = named.get(group.name, (group.name, None, None))
        field = _found(fields, name, "state", group.name)
        components = range(field.size)[slice(first, last)]
        _check_size("state", group.name, group.size, name, len(components))
        for index, component in enumerate(components):
            parts.append((name, component))
            scale = _to_unit(group.low[index], group.high[index], f"state '{group.name}'")
            factor.append(scale[0] / field.scale)
            offset.append(scale[1])
    used = {name for name, _ in parts}
    states = tuple(name for name in fields if name in used)
    starts, start = {}, 0
    for name in states:
        starts[name] = start
        start += fields[name].size
    columns = tuple(starts[name] + component for name, component in parts)
    return states, columns, Scale(tuple(factor), tuple(offset))


def _match_actions(
    checkpoint: Gr00tCheckpoint, contract: Contract, config: Gr00tConfig
) -> tuple[tuple[int, ...], Scale]:
    starts, start = {}, 0
    fields = {field.name: field for field in contract.action}
    for name, action in fields.items():
        starts[name] = start
        start += action.size
    named = _entries(config.action, [group.name for group in checkpoint.action], "action")
    columns: dict[int, int] = {}
    factor, offset = [1.0] * contract.action_size, [0.0] * contract.action_size
    for group in checkpoint.action:
        name, first, last = named.get(group.name, (group.name, None, None))
        field = _found(fields, name, "action", group.name)
        if group.representation == "RELATIVE" or group.step_low:
            raise ContractError(
                f"the checkpoint's action '{group.name}' is {group.representation} to the state "
                "at the chunk's start",
                expected="actions that each stand for themselves: ABSOLUTE or DELTA",
                remedy="fine-tune the checkpoint with use_relative_action = false",
            )
        components = range(field.size)[slice(first, last)]
        _check_size("action", group.name, group.size, name, len(components))
        for index, component in enumerate(components):
            column = starts[name] + component
            if column in columns:
                raise ContractError(f"two of the checkpoint's actions are '{name}'[{component}]")
            columns[column] = group.start + index
            if field.kind != "gripper":  # which opens at -1 to 1 of its range, whatever that is
                half = 0.5 * (group.high[index] - group.low[index])
                centre = 0.5 * (group.high[index] + group.low[index])
                factor[column] = half / field.scale[component]
                offset[column] = centre / field.scale[component]
    if len(columns) < contract.action_size:
        lacking = [name for name, at in starts.items() if at not in columns]
        raise ContractError(
            f"the contract's actions {lacking or 'in part'} are none of the checkpoint's",
            expected=f"{contract.action_size} components, the checkpoint has "
            f"{checkpoint.action_size}",
            remedy="take a checkpoint of this embodiment, or say which is which with gr00t.action",
        )
    ordered = tuple(columns[column] for column in range(contract.action_size))
    return ordered, Scale(tuple(factor), tuple(offset))


def _entries(
    entries: Sequence[str], known: Sequence[str], key: str
) -> Mapping[str, tuple[str, int | None, int | None]]:
    """Return group -> (field, first, last) of a mapping's entries."""
    named: dict[str, Any] = {}
    for entry in entries:
        found = ENTRY.fullmatch(entry.replace(" ", ""))
        if found is None:
            raise ContractError(
                f"'gr00t.{key}' has '{entry}'", expected="GROUP=FIELD or GROUP=FIELD[FIRST:LAST]"
            )
        group, field, first, last = found.groups()
        if group not in known:
            raise ContractError(
                f"'gr00t.{key}' names '{group}', which the checkpoint does not have",
                remedy=nearest(group, known),
            )
        bounds = (None, None) if first is None else (int(first), int(last))
        named[group] = (field, *bounds)
    return named


def _found[T](fields: Mapping[str, T], name: str, what: str, group: str) -> T:
    """Return the field of a group of states or of actions."""
    if name not in fields:
        raise ContractError(
            f"the checkpoint's {what} '{group}' is no field of the contract",
            expected=f"a field '{name}' of the contract's {what}s, float32 and without history",
            remedy=f"{nearest(name, fields)}; gr00t.{what}:=[{group}=FIELD] says which",
        )
    return fields[name]


def _check_size(what: str, group: str, size: int, field: str, found: int) -> None:
    if size != found:
        raise ContractError(
            f"the checkpoint's {what} '{group}' has {size} components and '{field}' {found}",
            expected="as many",
            remedy="name a part: FIELD[FIRST:LAST]",
        )


def _to_unit(low: float, high: float, what: str) -> tuple[float, float]:
    """Return factor and offset that map [low, high] to [-1, 1]; what never varies maps to 0."""
    if not high >= low:
        raise ContractError(f"the checkpoint's {what} ranges from {low} to {high}")
    if high == low:
        return 0.0, 0.0
    factor = 2.0 / (high - low)
    return factor, -1.0 - factor * low
