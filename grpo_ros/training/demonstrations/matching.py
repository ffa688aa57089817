"""Matching: component names of a contract, and how a recording differs from what a task wants."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from grpo_ros.contract import ActionField, Contract, ObservationField
from grpo_ros.errors import DemonstrationError
from grpo_ros.training.demonstrations.manifest import RECORD_AGAIN
from grpo_ros.training.demonstrations.recording import Episode

NAMED_DIFFERENCES = 4
COMPONENTS = {"position": "x y z", "command_error": "x y z", "yaw": "cos sin"}
COMPONENTS["polar"] = "distance cos sin"
OF_RUN = ("task", "instruction", "embodiment", "robot_sha256", "control_rate_hz")
OF_OBSERVATION = ("shape", "dtype", "source", "unit", "frame", "scale", "history")


def state_names(contract: Contract) -> dict[str, tuple[str, ...]]:
    """Return field -> names of its components, for the float32 fields in order."""
    return {field.name: _components(field, contract) for field in contract.state_fields}


def action_names(contract: Contract) -> tuple[str, ...]:
    """Return the names of the action's components, each with its field's name before it."""
    return tuple(name for field in contract.action for name in _prefixed(field.name, field.names))


def image_fields(contract: Contract) -> tuple[ObservationField, ...]:
    """Return the uint8 fields, in order."""
    return tuple(field for field in contract.observation if field.dtype == "uint8")


def check_contract(path: Path, recorded: Contract, wanted: Contract) -> None:
    """Check that what was recorded for one contract can be cloned for another.

    Chunks, horizon, limits and randomisation may differ; what is observed may be less.

    Raises:
        DemonstrationError: names what differs.
    """
    if found := differences(recorded, wanted):
        more = len(found) - NAMED_DIFFERENCES
        listed = "; ".join(found[:NAMED_DIFFERENCES]) + f"; {more} more" * (more > 0)
        raise DemonstrationError(
            f"{path} does not fit the task: {listed}",
            remedy=f"give the settings that it was recorded with, or {RECORD_AGAIN}",
        )


def differences(recorded: Contract, wanted: Contract) -> list[str]:
    """Return what a recording has that a task has otherwise, a phrase each."""
    found = [
        f"{name} {_short(getattr(recorded, name))}, wanted {_short(getattr(wanted, name))}"
        for name in OF_RUN
        if getattr(recorded, name) != getattr(wanted, name)
    ]
    there = {field.name: field for field in recorded.observation}
    for field in wanted.observation:
        if field.name not in there:
            found.append(f"no observation '{field.name}' (has {', '.join(there) or 'none'})")
            continue
        for name in OF_OBSERVATION:
            had, has = getattr(there[field.name], name), getattr(field, name)
            if had != has:
                found.append(f"'{field.name}' has {name} {_short(had)}, wanted {_short(has)}")
    had_names, has_names = action_names(recorded), action_names(wanted)
    if had_names != has_names:
        found.append(f"actions {', '.join(had_names)}, wanted {', '.join(has_names)}")
        return found
    for before, now in zip(recorded.action, wanted.action, strict=True):
        for entry in dataclasses.fields(ActionField):
            had, has = getattr(before, entry.name), getattr(now, entry.name)
            if had != has:
                found.append(f"'{now.name}' has {entry.name} {_short(had)}, wanted {_short(has)}")
    return found


def check_episode(path: Path, index: int, episode: Episode, contract: Contract) -> None:
    """Check an episode's shapes, types and that all numbers are finite.

    Raises:
        DemonstrationError: names the episode and the field.
    """
    steps, size = episode.num_steps, contract.action_size
    where = f"{path}: episode {index}"
    if not steps:
        raise DemonstrationError(f"{where} is empty", remedy=RECORD_AGAIN)
    for field in contract.observation:
        dtype = torch.uint8 if field.dtype == "uint8" else torch.float32
        _check(where, field.name, episode.obs[field.name], (steps, *field.shape), dtype)
    _check(where, "action", episode.action, (steps, size), torch.float32)
    _check(where, "executed action", episode.executed, (steps, size), torch.float32)


def _check(
    where: str, name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    if tuple(value.shape) != shape or value.dtype != dtype:
        raise DemonstrationError(
            f"{where}: '{name}' is {tuple(value.shape)} {value.dtype}",
            expected=f"{shape} {dtype}",
            remedy=RECORD_AGAIN,
        )
    if value.dtype == torch.float32 and not bool(torch.isfinite(value).all()):
        step = int((~torch.isfinite(value).reshape(len(value), -1).all(dim=1)).nonzero()[0])
        raise DemonstrationError(
            f"{where}, step {step}: '{name}' is not finite",
            expected="numbers",
            remedy=f"leave the episode out, or {RECORD_AGAIN}",
        )


def _components(field: ObservationField, contract: Contract) -> tuple[str, ...]:
    names: tuple[str, ...]
    kind, size = field.source.kind, field.size * field.history
    if kind in ("joint_position", "joint_velocity"):
        names = field.source.names
    elif kind == "last_action":
        names = action_names(contract)
    else:
        names = tuple(COMPONENTS.get(kind, "").split())
    if len(names) != size:
        names = tuple(str(index) for index in range(size))
    return _prefixed(field.name, names)


def _prefixed(field: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return (field,) if len(names) == 1 else tuple(f"{field}.{name}" for name in names)


def _short(value: object) -> str:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries = [(f.name, f.default, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return ", ".join(f"{n} {v}" for n, default, v in entries if v != default)
    return f"'{value}'" if isinstance(value, str) else str(value)
