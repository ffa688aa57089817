"""Faults that end a run, whatever the policy wants: they stand until someone starts it again.

The operator's enable signal, the robot's own mode, how far the joints are from their commands,
and what they feel from outside. Ages are of a steady clock, by arrival: a frozen clock or a
stamp that is repeated keeps nothing alive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros import typed
from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]
NANOSECONDS = 1_000_000_000
KEPT_CURVES = 64


@dataclasses.dataclass(frozen=True)
class FaultConfig:
    """What has to be true while a policy runs."""

    enable_topic: str = typed.setting(
        "", "std_msgs/Bool that has to be true and fresh (dead-man); empty: none is asked for"
    )
    enable_timeout_s: float = typed.setting(
        0.25, "Longest age of the enable signal", unit="s", minimum=0.01
    )
    mode_timeout_s: float = typed.setting(
        0.0, "Longest age of the robot's mode; 0: published on change only", unit="s", minimum=0.0
    )
    watch_mode: bool = typed.setting(True, "Stop where the robot's mode is not an accepted one")
    watch_tracking: bool = typed.setting(True, "Stop where joints do not follow their commands")
    watch_torque: bool = typed.setting(
        True, "Stop on external torque, or where a limited joint's is not reported"
    )
    torque_timeout_s: float = typed.setting(
        0.5, "Longest age of a joint's external torque", unit="s", minimum=0.01
    )


@dataclasses.dataclass(frozen=True)
class Fault:
    """Why a run has to end: enable, robot_mode, tracking or external_torque."""

    kind: str
    reason: str


class FaultWatch:
    """Takes what is reported, and says whether the run may go on.

    Args:
        robot: its `safety` section says what is watched.
        config: what is asked for.
    """

    def __init__(self, robot: Robot, config: FaultConfig | None = None) -> None:
        self.robot, self.config = robot, config or FaultConfig()
        self.joint_names = robot.arm_joints
        self._enable: tuple[bool, float] | None = None
        self._mode: tuple[str, float] | None = None
        self._torque: dict[str, tuple[float, float]] = {}
        self._curves: list[tuple[int, Curve]] = []
        self.tracking_error = 0.0
        """Largest distance of a joint from its command at the last check, rad or m."""

    def forget(self) -> None:
        """Begin a run: what was commanded before does not count."""
        self._curves, self.tracking_error = [], 0.0

    # ---------------------------------------------------------------- what is reported

    def put_enable(self, is_enabled: bool, steady_s: float) -> None:
        """Take the operator's signal."""
        self._enable = is_enabled, steady_s

    def put_mode(self, value: str, steady_s: float) -> None:
        """Take the robot's mode, as text."""
        self._mode = value, steady_s

    def put_torque(self, names: Sequence[str], effort: Array, steady_s: float) -> None:
        """Take external torques (J,), N m or N, by joint.

        Args:
            names: of the joints. effort: of each; others are passed over, and grow old.
            steady_s: when they came, on this computer's steady clock.
        """
        if len(names) == len(effort):
            for name, value in zip(names, effort, strict=True):
                self._torque[name] = float(value), steady_s

    def put_curve(self, stamp_ns: int, curve: Curve) -> None:
        """Take what was commanded from a time on."""
        self._curves = [*self._curves[1 - KEPT_CURVES :], (stamp_ns, curve)]

    # ---------------------------------------------------------------- judgement

    def problem(self, steady_s: float) -> Fault | None:
        """Return what ends the run, or keeps it from beginning.

        Args:
            steady_s: the steady clock now.
        """
        return (
            self._check_enable(steady_s)
            or self._check_mode(steady_s)
            or self._check_torque(steady_s)
        )

    def judge_tracking(self, stamp_ns: int, position: Array) -> Fault | None:
        """Return a fault where joints (A,) measured at a time are far from their commands."""
        limit = self.robot.safety.tracking_error
        commanded = self._commanded(stamp_ns)
        if commanded is None:
            return None
        distance = np.abs(position - commanded)
        column = int(np.argmax(distance))
        self.tracking_error = float(distance[column])
        if not self.config.watch_tracking or limit <= 0.0 or self.tracking_error <= limit:
            return None
        return Fault(
            "tracking",
            f"joint '{self.joint_names[column]}' is {self.tracking_error:.3f} from its command, "
            f"at most {limit:.3f}",
        )

    def _commanded(self, stamp_ns: int) -> Array | None:
        for began_ns, curve in reversed(self._curves):
            if stamp_ns >= began_ns:
                return curve.sample((stamp_ns - began_ns) / NANOSECONDS)[0]
        return None

    def _check_enable(self, steady_s: float) -> Fault | None:
        if not self.config.enable_topic:
            return None
        if self._enable is None:
            return Fault("enable", f"no enable signal on '{self.config.enable_topic}'")
        is_enabled, arrived_s = self._enable
        age_s = steady_s - arrived_s
        if age_s > self.config.enable_timeout_s:
            return Fault("enable", f"the enable signal is {age_s:.2f} s old")
        return None if is_enabled else Fault("enable", "the enable switch is released")

    def _check_mode(self, steady_s: float) -> Fault | None:
        mode = self.robot.safety.robot_mode
        if mode is None or not self.config.watch_mode:
            return None
        if self._mode is None:
            return Fault("robot_mode", f"the robot's mode is not known: nothing on '{mode.topic}'")
        value, arrived_s = self._mode
        if self.config.mode_timeout_s and steady_s - arrived_s > self.config.mode_timeout_s:
            return Fault("robot_mode", f"the robot's mode is {steady_s - arrived_s:.1f} s old")
        if value not in mode.accepted:
            return Fault(
                "robot_mode", f"{mode.topic} says {value}, expected {' or '.join(mode.accepted)}"
            )
        return None

    def _check_torque(self, steady_s: float) -> Fault | None:
        external = self.robot.safety.external_torque
        if external is None or not self.config.watch_torque:
            return None
        for name, limit in external.limit.items():
            if name not in self._torque:
                reason = f"no torque of joint '{name}' on '{external.topic}'"
                return Fault("external_torque", reason)
            value, arrived_s = self._torque[name]
            if steady_s - arrived_s > self.config.torque_timeout_s:
                age_s = steady_s - arrived_s
                return Fault("external_torque", f"joint '{name}': its torque is {age_s:.2f} s old")
            if not abs(value) <= limit:
                return Fault(
                    "external_torque",
                    f"joint '{name}' feels {value:.1f} from outside, at most {limit:.1f}",
                )
        return None
