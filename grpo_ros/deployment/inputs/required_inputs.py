"""Required inputs: what a contract's fields read, how old and how far apart it may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from grpo_ros.contract import Contract, ObservationField
from grpo_ros.errors import ContractError
from grpo_ros.observations import TIP, body_names
from grpo_ros.robots.robot import Robot

NANOSECONDS = 1_000_000_000
COMMANDED_MAX_AGE_S = 0.1
"""Oldest usable position of a commanded joint that no observation field names."""
IMAGE_ENCODINGS = ("rgb8", "bgr8")
"""What a policy may have been trained on; an empty encoding means rgb8."""


@dataclasses.dataclass(frozen=True)
class Need:
    """The inputs that one field reads, and how old and how far apart they may be.

    Attributes:
        rows: of `RequiredInputs.names`.
    """

    rows: tuple[int, ...]
    max_age_ns: int
    max_skew_ns: int


@dataclasses.dataclass(frozen=True)
class ImageField:
    """One image that the policy sees.

    Attributes:
        name: of the field. camera: whose image.
        height, width: pixels.
        is_bgr: whether the policy was trained on blue, green, red.
    """

    name: str
    camera: str
    height: int
    width: int
    is_bgr: bool


@dataclasses.dataclass(frozen=True)
class RequiredInputs:
    """Everything that has to be measured for a contract.

    Attributes:
        joints: names; positions are needed. velocities: those whose velocity is needed too.
        bodies: whose poses are needed. images: fields of cameras.
        sensors: name -> number of beams. ranges: name -> range in training, m, where known.
        names: of all inputs as messages call them: joints, bodies, cameras, sensors, in order.
        needs: one per field that reads any of them.
    """

    joints: tuple[str, ...]
    velocities: tuple[str, ...]
    bodies: tuple[str, ...]
    images: tuple[ImageField, ...]
    sensors: dict[str, int]
    ranges: dict[str, float]
    names: tuple[str, ...]
    needs: tuple[Need, ...]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        return tuple(dict.fromkeys(image.camera for image in self.images))


def required_inputs(contract: Contract, robot: Robot) -> RequiredInputs:
    """Return what has to be measured for a contract on a robot.

    Raises:
        ContractError: an image or a scan of a form that no camera or laser is converted to.
    """
    used = {field.name: _used(field, robot) for field in contract.observation}
    joints = [*contract.joint_names]
    for inputs in used.values():
        joints += [name for kind, name in inputs if kind == "joint" and name not in joints]
    images = tuple(map(_image, _of_kind(contract, "camera")))
    sensors, ranges = _sensors(contract)
    cameras = dict.fromkeys(image.camera for image in images)
    rows = {
        key: row
        for row, key in enumerate(
            [
                *(("joint", name) for name in joints),
                *(("body", name) for name in body_names(contract)),
                *(("camera", name) for name in cameras),
                *(("scan", name) for name in sensors),
            ]
        )
    }
    needs = [
        Need(
            tuple(rows[key] for key in used[field.name]),
            round(field.max_age_s * NANOSECONDS),
            round(field.max_skew_s * NANOSECONDS),
        )
        for field in contract.observation
        if used[field.name]
    ]
    patience = round(COMMANDED_MAX_AGE_S * NANOSECONDS)
    commanded = tuple(rows["joint", name] for name in contract.joint_names)
    if commanded:
        needs.append(Need(commanded, patience, patience))
    velocities = [
        name for field in _of_kind(contract, "joint_velocity") for name in field.source.names
    ]
    return RequiredInputs(
        joints=tuple(joints),
        velocities=tuple(dict.fromkeys(velocities)),
        bodies=body_names(contract),
        images=images,
        sensors=sensors,
        ranges=ranges,
        names=tuple(_LABELS[kind].format(name) for kind, name in rows),
        needs=tuple(needs),
    )


_LABELS = {
    "joint": "joint '{}'",
    "body": "pose of '{}'",
    "camera": "image of camera '{}'",
    "scan": "scan '{}'",
}


def _of_kind(contract: Contract, kind: str) -> list[ObservationField]:
    return [field for field in contract.observation if field.source.kind == kind]


def _used(field: ObservationField, robot: Robot) -> list[tuple[str, str]]:
    """Return (kind, name) of the inputs that a field reads."""
    source = field.source
    match source.kind:
        case "joint_position" | "joint_velocity":
            return [("joint", name) for name in source.names]
        case "command_error":
            return [("joint", name) for name in robot.arm_joints]
        case "position" | "height" | "yaw" | "polar":
            named = [name for name in (*source.names, source.relative_to) if name]
            used = [("body", name) for name in _unique(named) if name != TIP]
            if TIP in named:
                used += [("joint", name) for name in robot.arm_joints]
            return used
        case "camera" | "scan":
            return [(source.kind, name) for name in source.names]
    return []


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _image(field: ObservationField) -> ImageField:
    encoding = field.source.encoding or IMAGE_ENCODINGS[0]
    is_image = len(field.shape) == 3 and field.shape[2] == 3 and min(field.shape) > 0
    if not is_image or field.dtype != "uint8" or field.history != 1:
        raise ContractError(
            f"observation field '{field.name}' of a camera is {field.dtype} {list(field.shape)}"
            f" with history {field.history}",
            expected="uint8 [height, width, 3] with history 1",
        )
    if encoding not in IMAGE_ENCODINGS or len(field.source.names) != 1:
        raise ContractError(
            f"observation field '{field.name}' has encoding '{encoding}' and cameras "
            f"{list(field.source.names)}",
            expected=f"one camera and {' or '.join(IMAGE_ENCODINGS)}",
        )
    height, width, _ = field.shape
    return ImageField(field.name, field.source.names[0], height, width, encoding == "bgr8")


def _sensors(contract: Contract) -> tuple[dict[str, int], dict[str, float]]:
    """Return the beams of each scan, and the largest range that the policy was trained with."""
    sensors: dict[str, int] = {}
    ranges: dict[str, float] = {}
    for field in _of_kind(contract, "scan"):
        names, size = field.source.names, field.size
        if len(names) != 1 or len(field.shape) != 1 or sensors.get(names[0], size) != size:
            raise ContractError(
                f"observation field '{field.name}' is {list(field.shape)} of {list(names)}",
                expected="one number per beam of one sensor, as many as in its other fields",
            )
        sensors[names[0]] = size
        if field.statistics is not None and field.scale > 0.0:
            ranges[names[0]] = max(field.statistics.maximum) / field.scale
    return sensors, ranges
