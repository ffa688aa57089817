"""Whether an arm stands, and where it can: before anything is commanded from there.

A gate opens at rest and lets a joint stay that is beyond a limit, so what cannot be so, as one
wrong number of a sensor, would be commanded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.contract import JointLimits

Array = npt.NDArray[np.float64]
STANDING_SPEED = 0.2
"""rad/s or m/s. Coarse encoders report up to 0.08 rad/s of joints that stand."""
BEYOND_LIMIT = 0.1
"""rad or m. Joints may be pushed beyond their limits, but not further."""


def standing_problem(limits: Sequence[JointLimits], position: Array, velocity: Array) -> str:
    """Return why nothing may be commanded from where joints are measured; empty if it may.

    Args:
        limits: of the J joints. position, velocity: (J,) as measured.
    """
    for limit, place, speed in zip(limits, position, velocity, strict=True):
        if abs(speed) > STANDING_SPEED:
            return f"joint '{limit.name}' moves at {speed:.3g}/s"
        if not limit.lower - BEYOND_LIMIT <= place <= limit.upper + BEYOND_LIMIT:
            return f"joint '{limit.name}' is at {place:.4g}, beyond its limits"
    return ""
