"""What the Simulator protocol speaks of, to and from messages; used by both ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from grpo_ros import errors
from grpo_ros.errors import BridgeError, GrpoRosError, SimulatorError
from grpo_ros.simulators.base import Capabilities, EnvIds, Observation, StepResult
from grpo_ros.simulators.remote.wire import Message
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.scene_state import SceneState

ERROR = "error"
RESULT = ("reward_terms", "terminated", "truncated", "executed", "outcome", "score")


def put_tensors(message: Message, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Add named tensors under a name of their own."""
    message.tensors.update({f"{name}/{key}": value for key, value in tensors.items()})


def take_tensors(message: Message, name: str) -> dict[str, Tensor]:
    """Return what `put_tensors` added under a name."""
    start = f"{name}/"
    return {
        key.removeprefix(start): value
        for key, value in message.tensors.items()
        if key.startswith(start)
    }


def put_scene(message: Message, name: str, scene: SceneState) -> None:
    """Add a scene."""
    message.fields[name] = list(scene.joint_names)
    put_tensors(
        message,
        name,
        {"joint_position": scene.joint_position, "joint_velocity": scene.joint_velocity},
    )
    for kind in ("poses", "velocities", "readings"):
        put_tensors(message, f"{name}.{kind}", getattr(scene, kind))


def take_scene(message: Message, name: str) -> SceneState:
    """Return a scene.

    Raises:
        BridgeError: there is none of that name.
    """
    return SceneState(
        tuple(field(message, name)),
        tensor(message, f"{name}/joint_position"),
        tensor(message, f"{name}/joint_velocity"),
        *(take_tensors(message, f"{name}.{kind}") for kind in ("poses", "velocities", "readings")),
    )


def put_snapshot(message: Message, snapshot: Snapshot) -> None:
    """Add a snapshot."""
    message.fields["engine"] = snapshot.engine
    put_tensors(message, "snapshot", snapshot.arrays)


def take_snapshot(message: Message) -> Snapshot:
    """Return the snapshot.

    Raises:
        BridgeError: there is none.
    """
    return Snapshot(str(field(message, "engine")), take_tensors(message, "snapshot"))


def put_result(message: Message, result: StepResult) -> None:
    """Add what a step gave; an observation that is given twice is sent once."""
    put_tensors(message, "obs", result.obs)
    if result.final_obs is not result.obs:
        put_tensors(message, "final_obs", result.final_obs)
    put_tensors(message, "result", {name: getattr(result, name) for name in RESULT})


def take_result(message: Message) -> StepResult:
    """Return what a step gave.

    Raises:
        BridgeError: something is missing.
    """
    obs: Observation = take_tensors(message, "obs")
    final_obs = take_tensors(message, "final_obs") or obs
    return StepResult(obs, final_obs, *(tensor(message, f"result/{name}") for name in RESULT))


def capabilities_fields(capabilities: Capabilities) -> dict[str, Any]:
    """Return capabilities as JSON values."""
    return {**dataclasses.asdict(capabilities), "cameras": list(capabilities.cameras)}


def take_capabilities(values: Mapping[str, Any]) -> Capabilities:
    """Return the capabilities that `capabilities_fields` gave.

    Raises:
        BridgeError: they are others than this version knows.
    """
    try:
        return Capabilities(**{**values, "cameras": tuple(values["cameras"])})
    except (TypeError, KeyError) as problem:
        raise BridgeError(f"the bridge's capabilities are {values!r}") from problem


def plain_ids(ids: EnvIds | Sequence[int]) -> list[int] | None:
    """Return environment or row numbers as JSON values; None means all."""
    if ids is None:
        return None
    return [int(i) for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]


def field(message: Message, name: str) -> Any:
    """Return a field; raise BridgeError where it is missing."""
    if name not in message.fields:
        raise BridgeError(f"a message lacks '{name}'", expected=f"fields {name}")
    return message.fields[name]


def tensor(message: Message, name: str) -> Tensor:
    """Return a tensor; raise BridgeError where it is missing."""
    if name not in message.tensors:
        raise BridgeError(f"a message lacks tensor '{name}'")
    return message.tensors[name]


def error_fields(problem: Exception) -> dict[str, Any]:
    """Return an exception as JSON values."""
    if isinstance(problem, GrpoRosError):
        parts = (problem.what, problem.expected, problem.remedy)
    else:
        text = f"{type(problem).__name__} in the bridge: {problem}"
        parts = (text, "", "the bridge has written where")
    return {ERROR: [type(problem).__name__, *parts]}


def raise_error(fields: Mapping[str, Any]) -> None:
    """Raise what `error_fields` gave, of the same type where it is one of this package's.

    Raises:
        GrpoRosError: there was an error; a SimulatorError where its type is not known here.
        BridgeError: what is there is no error.
    """
    if ERROR not in fields:
        return
    try:
        name, what, expected, remedy = map(str, fields[ERROR])
    except (TypeError, ValueError):
        raise BridgeError(f"the bridge answers with the error {fields[ERROR]!r}") from None
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, GrpoRosError)):
        kind = SimulatorError
    raise kind(what, expected=expected, remedy=remedy)
