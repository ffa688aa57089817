"""What a tick of the policy runner answers: a command, or why there is none."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.deployment.safety.stream_gate import Intervention

Array = npt.NDArray[np.float64]
Phase = Literal["holding", "running", "finished", "stopped"]


@dataclasses.dataclass(frozen=True)
class GripperTarget:
    """Where the gripper's driver joint goes, in rad or m, with at most how many N m or N."""

    position: float
    max_effort: float


@dataclasses.dataclass(frozen=True)
class Motion:
    """What the gate let through for one tick.

    Attributes:
        epoch, sequence: identity; see `PolicyRunner.may_send`.
        stamp_ns: the tick it answers; point r is due at stamp_ns + (r + 1) control periods.
        names: of the columns: joints, or the components of a twist.
        points: (M, J) float64, all that is still to come, the last at rest; M may be 0.
        curve: the motion they stand for, from stamp_ns on; None where there is nothing to send.
        is_known: whether it is the rest of what was sent before.
    """

    epoch: int
    sequence: int
    stamp_ns: int
    names: tuple[str, ...]
    points: Array
    curve: Curve | None = None
    is_known: bool = False


@dataclasses.dataclass(frozen=True)
class Command(Motion):
    """What may be sent now.

    Attributes:
        num_asked: points that answer the policy; the others are the braking tail.
        gripper: set only when the gripper's command changes.
        interventions: what the gate changed.
        is_new_chunk: whether a chunk of the policy begins here.
    """

    num_asked: int = 0
    gripper: GripperTarget | None = None
    interventions: tuple[Intervention, ...] = ()
    is_new_chunk: bool = False


@dataclasses.dataclass(frozen=True)
class Hold(Motion):
    """Why the policy commands nothing; the points bring the joints to rest.

    Attributes:
        kind: holding, missing, stale, skewed, future, inference, late, finished, stopped, or that
            of a fault: enable, robot_mode, tracking, external_torque.
        reason: in words.
    """

    kind: str = "holding"
    reason: str = ""
