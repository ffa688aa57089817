"""twist: forward and turning velocity of a base that cannot move sideways."""

from __future__ import annotations

import numpy as np

from grpo_ros.contract import ActionField
from grpo_ros.controllers.arm_command import ArmState
from grpo_ros.controllers.joint_limiter import JointLimiter
from grpo_ros.elementary import Array, sine_cosine
from grpo_ros.errors import ContractError
from grpo_ros.robots.robot import Robot

COMPONENTS = ("linear_x", "angular_z")
PLANAR = ("prismatic", "prismatic", "revolute")


class Twist:
    """Integrates a unicycle's velocities into the base's joints x, y and yaw.

    In a period dt both velocities are constant and the base drives an arc, taken as a straight
    line along its middle heading:

        x <- x + v dt cos(yaw + w dt / 2),  y alike,  yaw <- yaw + w dt.

    The velocities change by at most the joints' accelerations times dt.

    Args:
        field: two components, linear_x (m/s) and angular_z (rad/s); its scale is full speed.
        robot: its arm joints are x, y (prismatic) and yaw.
        limiter: of those joints; gives period and velocity limits.

    Raises:
        ContractError: other components, or a robot that is no such base.
    """

    def __init__(self, field: ActionField, robot: Robot, limiter: JointLimiter) -> None:
        if field.names != COMPONENTS:
            raise ContractError(
                f"action '{field.name}' has components {list(field.names)}",
                expected=f"{list(COMPONENTS)} for twist",
            )
        if robot.chain.joint_kinds != PLANAR:
            raise ContractError(
                f"action '{field.name}' is a twist",
                expected="a robot whose joints are x, y (prismatic) and yaw (revolute)",
            )
        self.period_s = limiter.period_s
        self._lower, self._upper = limiter.lower, limiter.upper
        self._change = limiter.velocity_change[[0, 2]]
        fastest = limiter.velocity[[0, 2]]
        self._scale = np.minimum(np.array([[scale] for scale in field.scale]), fastest)

    def step(self, state: ArmState, action: Array) -> ArmState:
        """Return the commanded state one control period on; see ArmCommand."""
        return self.drive(state, self.limited(state, action))

    def limited(self, state: ArmState, action: Array) -> Array:
        """Return the velocities (2, N) that an action asks for, within limits, m/s and rad/s."""
        before = self._twist(state)
        twist: Array = np.clip(self._scale * action, before - self._change, before + self._change)
        return twist

    def drive(self, state: ArmState, twist: Array) -> ArmState:
        """Return the commanded state after one control period at velocities (2, N)."""
        dt = self.period_s
        velocity = arc_velocity(state.joints[2], twist, dt)
        joints = np.clip(state.joints + dt * velocity, self._lower, self._upper)
        tip = state.tip.copy()
        tip[:2] = joints[:2]
        return ArmState(joints, velocity, tip, joints[2])

    def _twist(self, state: ArmState) -> Array:
        """Return forward and turning velocity (2, N) of the period before."""
        turn = state.velocity[2]
        sine, cosine = sine_cosine(state.joints[2] - 0.5 * self.period_s * turn)
        return np.stack([state.velocity[0] * cosine + state.velocity[1] * sine, turn])


def arc_velocity(yaw: Array, twist: Array, duration_s: float) -> Array:
    """Return the mean velocity (3, N) of x, y and yaw along the arc that a twist drives.

    Args:
        yaw: (N,) at its beginning, rad.
        twist: (2, N) forward and turning velocity, m/s and rad/s.
        duration_s: of the arc.
    """
    speed, turn = twist
    sine, cosine = sine_cosine(yaw + 0.5 * duration_s * turn)
    return np.stack([speed * cosine, speed * sine, turn])
