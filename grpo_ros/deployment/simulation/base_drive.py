"""Base drive: a diff_drive_controller, as far as the plane goes.

Facts from ros2_controllers, diff_drive_controller.cpp of Jazzy: a command's age counts from its
own stamp; one that arrives older than cmd_vel_timeout is ignored, stamp 0 is now, and a stored one
that has become older stops the base; a command that is not finite changes nothing. By default
there are no limits of velocity or acceleration.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from grpo_ros.controllers.controller import ActionController, ControllerState
from grpo_ros.controllers.twist import arc_velocity
from grpo_ros.deployment.simulation.trajectory_follower import SECOND_NS, Array


class BaseDrive:
    """Turns velocity commands into the targets of a base's joints x, y and yaw.

    Args:
        controller: of the contract whose action is a twist.
        timeout_s: age at which a command stops the base; 0: in the next step.
        state: the controller's, where the base stands.
    """

    def __init__(
        self, controller: ActionController, timeout_s: float, state: ControllerState
    ) -> None:
        self._controller, self._timeout_ns = controller, round(timeout_s * SECOND_NS)
        limits = controller.limiter
        self._lower, self._upper = limits.lower[:, 0], limits.upper[:, 0]
        self.reset(state)

    def reset(self, state: ControllerState) -> None:
        """Stand where the controller's state says."""
        self._state = state
        self.target: Array = state["target"][0, :3].numpy().copy()
        self._twist, self._stamp_ns = (0.0, 0.0), 0
        self.is_commanded = False
        """Whether a command has come since."""

    def command(self, speed: float, turn: float, stamp_ns: int, now_ns: int) -> None:
        """Take a command, m/s and rad/s.

        Raises:
            ValueError: it is ignored; says why.
        """
        if not (math.isfinite(speed) and math.isfinite(turn)):
            raise ValueError(f"twist {speed} m/s, {turn} rad/s is not finite")
        stamp = stamp_ns or now_ns
        age_ns = now_ns - stamp
        if self._timeout_ns and age_ns >= self._timeout_ns:
            raise ValueError(
                f"twist stamped {stamp} ns is {age_ns / SECOND_NS:g} s old, "
                f"expected less than cmd_vel_timeout, {self._timeout_ns / SECOND_NS:g} s"
            )
        self._twist, self._stamp_ns = (speed, turn), stamp
        self.is_commanded = True

    def step(self, now_ns: int, step_ns: int) -> Array:
        """Return the targets (3,) after one physics step along the commanded arc."""
        if now_ns - self._stamp_ns > self._timeout_ns:
            self._twist = (0.0, 0.0)
        duration = step_ns / SECOND_NS
        twist = np.array(self._twist)[:, None]
        moved = self.target + duration * arc_velocity(self.target[2:], twist, duration)[:, 0]
        self.target = np.clip(moved, self._lower, self._upper)
        return self.target

    def step_period(self, speed: float, turn: float) -> Tensor:
        """Return the targets (1, 3) after one control period; equal to training, bit for bit."""
        twist = torch.tensor([[speed, turn]], dtype=torch.float64)
        self._state = self._controller.drive(self._state, twist)
        self.target = self._state["target"][0, :3].numpy().copy()
        return self._state["target"]
