"""ArmCommand: one way of commanding an arm. Arrays are float64, batch last."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from grpo_ros.elementary import Array


@dataclasses.dataclass(frozen=True)
class ArmState:
    """What is commanded of the arm, batch last.

    Attributes:
        joints: (A, N) rad.
        velocity: (A, N) rad/s.
        tip: (3, N) position in the base frame, m.
        yaw: (N,) rad.
    """

    joints: Array
    velocity: Array
    tip: Array
    yaw: Array


class ArmCommand(Protocol):
    """Turns the components of one action field into the arm's next commanded state."""

    def step(self, state: ArmState, action: Array) -> ArmState:
        """Return the state one control period on.

        Args:
            state: what is commanded so far.
            action: (components, N), clipped to the field's `clip`, before scaling.
        """
