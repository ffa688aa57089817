"""The contract: what a policy observes and commands, by name, unit, order and rate.

It is made by a task for a robot, travels with the policy inside its ONNX file, and decides what
the deployment node subscribes to and may send. It knows nothing of ROS or of a simulator.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from grpo_ros import typed
from grpo_ros.errors import ContractError, nearest

SCHEMA_VERSION = 1

MOTION_LEAD = 0.2
"""Share of a control period from a deployed tick to the motion that answers it.

So late may a tick be, inference, safety gate and transport included, without a step in the motion.
Training with `motion: smooth` has the same lag."""

SourceKind = Literal[
    "joint_position",
    "joint_velocity",
    "position",
    "height",
    "yaw",
    "command_error",
    "gripper_command",
    "last_action",
    "polar",
    "camera",
    "scan",
    "odometry",
    "wrench",
    "instruction",
    "environment",
]
"""Where a field comes from.

joint_position, joint_velocity: the named joints, in that order.
position: position of a body minus that of `relative_to` (base frame where empty), 3 numbers.
height: the z component of such a position, 1 number.
yaw: cos and sin of symmetry * (yaw of the body minus yaw of `relative_to`), 2 numbers.
command_error: commanded minus measured position of the tip, 3 numbers.
gripper_command: commanded opening, 0 closed to 1 open.
last_action: the action executed last, A numbers.
polar: planar distance of a body from `relative_to`, cos and sin of its bearing from its heading.
camera, scan, odometry, wrench, instruction: taken as measured.
environment: computed by a simulator's environment; no robot can measure it.
"""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the numbers of an observation field come from."""

    kind: SourceKind
    names: tuple[str, ...] = typed.setting((), "Joints, or one body, frame or sensor")
    relative_to: str = typed.setting("", "Body or frame that positions and yaws are taken from")
    symmetry: int = typed.setting(1, "Rotational symmetry of the body about z", minimum=1)
    encoding: str = typed.setting("", "Image encoding, where the source is a camera")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the training data looked like, per component; what a robot sees is held to it."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class ObservationField:
    """One named input of a policy."""

    name: str
    shape: tuple[int, ...]
    source: Source
    dtype: Literal["float32", "uint8"] = "float32"
    unit: str = typed.setting("", "SI unit")
    frame: str = typed.setting("", "Frame that vectors are expressed in")
    scale: float = typed.setting(1.0, "Factor on the source's numbers before the policy sees them")
    history: int = typed.setting(1, "How many past values are stacked", minimum=1)
    max_age_s: float = typed.setting(0.1, "Older than this is stale", unit="s", minimum=0.0)
    max_skew_s: float = typed.setting(0.05, "Allowed spread of stamps", unit="s", minimum=0.0)
    statistics: Statistics | None = None

    @property
    def size(self) -> int:
        """Number of components."""
        size = 1
        for length in self.shape:
            size *= length
        return size


ActionKind = Literal[
    "joint_position", "joint_delta", "cartesian_delta", "twist", "gripper", "environment"
]


@dataclasses.dataclass(frozen=True)
class ActionField:
    """One named part of an action; its components lie in [-clip, clip] before scaling.

    cartesian_delta has 3 translations (m) and a yaw (rad) per control period; joint_delta one
    motion per joint and period, rad or m; gripper one number, open where it is >= 0; environment
    is what a simulator's environment takes, and no robot does.
    """

    name: str
    kind: ActionKind
    names: tuple[str, ...] = typed.setting(factory=tuple, description="Component names, in order")
    scale: tuple[float, ...] = typed.setting(factory=tuple, description="SI value of an action 1")
    unit: str = ""
    frame: str = typed.setting("", "Frame that deltas and twists are expressed in")
    tip: str = typed.setting("", "Frame that is moved")
    reference: Literal["commanded", "measured"] = "commanded"
    clip: float = typed.setting(1.0, "Largest magnitude of a component", minimum=0.0)
    controller: str = typed.setting("", "The robot's controller that takes the command")

    @property
    def size(self) -> int:
        """Number of components."""
        return len(self.names)


@dataclasses.dataclass(frozen=True)
class JointLimits:
    """Limits of one commanded joint: rad or m, their time derivatives, and N m or N."""

    name: str
    lower: float
    upper: float
    velocity: float
    acceleration: float
    jerk: float
    effort: float


TASK_SETTINGS = "task_settings"
"""In a provenance: all settings of the task, so that a policy that was copied is judged by it."""


@dataclasses.dataclass(frozen=True)
class Contract:
    """All that has to agree between training and a robot."""

    task: str
    instruction: str
    embodiment: str = typed.setting(description="Name of the robot description")
    robot_sha256: str = typed.setting(description="Hash of the URDF and YAML trained with")
    observation: tuple[ObservationField, ...] = ()
    action: tuple[ActionField, ...] = ()
    limits: tuple[JointLimits, ...] = typed.setting(
        (), "Limits per commanded joint, in the order they are commanded"
    )
    workspace: Mapping[str, tuple[float, float]] = typed.setting(
        factory=dict, description="Bounds of the commanded tip: x, y, z in m"
    )
    control_rate_hz: float = typed.setting(
        20.0, "Rate of actions", unit="Hz", minimum=0.1, maximum=10_000.0
    )
    chunk_size: int = typed.setting(4, "Actions that one inference gives", minimum=1)
    num_executed: int = typed.setting(4, "Actions executed before the next inference", minimum=1)
    horizon: int = typed.setting(
        60, "Control periods after which an episode ends", minimum=1, maximum=2**31 - 1
    )
    execution: Literal["sync", "async"] = "sync"
    motion: Literal["linear", "smooth"] = typed.setting(
        "linear",
        "Between targets in training: linear, as through positions alone; smooth, as the policy "
        "server sends them: the lines averaged over a control period, MOTION_LEAD later",
    )
    delay_periods: int = typed.setting(
        0, "Control periods between observation and action", minimum=0, maximum=10_000
    )
    noise_shape: tuple[int, ...] = typed.setting((), "Shape of the noise input; empty if none")
    noise_seeding: Literal["", "per_inference", "per_episode"] = typed.setting(
        "", "How often noise is drawn at deployment; empty: per_inference"
    )
    randomisation: Mapping[str, Any] = typed.setting(
        factory=dict, description="What was randomised in training"
    )
    provenance: Mapping[str, Any] = typed.setting(
        factory=dict, description="Algorithm, seed, versions, evaluation"
    )
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != SCHEMA_VERSION:
            raise ContractError(
                f"contract schema {self.schema_version}",
                expected=f"schema {SCHEMA_VERSION}",
                remedy="export the policy again with this version",
            )
        if not 1 <= self.num_executed <= self.chunk_size:
            raise ContractError(
                f"num_executed = {self.num_executed}", expected=f"1 to {self.chunk_size}"
            )
        names = [field.name for field in self.observation] + [a.name for a in self.action]
        if len(set(names)) != len(names):
            raise ContractError(f"field names {names} repeat", expected="unique names")
        for action in self.action:
            if len(action.scale) != action.size:
                raise ContractError(
                    f"action '{action.name}' has {len(action.scale)} scales",
                    expected=f"{action.size}, one per component {list(action.names)}",
                )

    @property
    def action_size(self) -> int:
        """A, the number of action components."""
        return sum(field.size for field in self.action)

    @property
    def state_size(self) -> int:
        """O, the number of components of all float32 fields together."""
        return sum(field.size * field.history for field in self.state_fields)

    @property
    def state_fields(self) -> tuple[ObservationField, ...]:
        """The float32 fields, in order."""
        return tuple(field for field in self.observation if field.dtype == "float32")

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the commanded joints, in order."""
        return tuple(limit.name for limit in self.limits)

    @property
    def period_s(self) -> float:
        """Control period, in seconds."""
        return 1.0 / self.control_rate_hz

    def field(self, name: str) -> ObservationField:
        """Return a named observation field."""
        for field in self.observation:
            if field.name == name:
                return field
        raise ContractError(
            f"observation field '{name}'",
            remedy=nearest(name, [field.name for field in self.observation]),
        )

    def with_provenance(self, **entries: Any) -> Contract:
        """Return the same contract with provenance entries added."""
        return dataclasses.replace(self, provenance={**self.provenance, **entries})

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, floats at full precision.

        Raises:
            ContractError: a number is not finite, which JSON has no word for.
        """
        tree = typed.encode(self)
        try:
            return json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except ValueError as problem:
            raise ContractError(
                f"contract of task '{self.task}' has a number that is not finite",
                expected="finite numbers, also in the settings of its task",
            ) from problem

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Return the contract in a JSON text.

        Raises:
            ContractError: the text is no JSON or no contract; names the field.
        """
        try:
            data = json.loads(text, parse_constant=_finite, parse_float=_finite)
        except (ValueError, RecursionError) as problem:
            raise ContractError(f"contract is not JSON: {problem}") from problem
        version = data.get("schema_version") if isinstance(data, dict) else None
        if version != SCHEMA_VERSION:
            raise ContractError(
                f"contract schema {version!r}",
                expected=f"schema {SCHEMA_VERSION}",
                remedy="export the policy again with this version",
            )
        return typed.decode(cls, data, "contract", ContractError)


def _finite(text: str) -> float:
    """Return a number of a JSON text; raise ValueError where a float cannot hold it."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value
