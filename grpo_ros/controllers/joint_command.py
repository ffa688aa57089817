"""joint_position and joint_delta: actions on the arm's joints themselves."""

from __future__ import annotations

import numpy as np

from grpo_ros.contract import ActionField
from grpo_ros.controllers.arm_command import ArmState
from grpo_ros.controllers.joint_limiter import JointLimiter
from grpo_ros.elementary import Array, arctangent2
from grpo_ros.errors import ContractError, nearest
from grpo_ros.robots.robot import Robot


class JointCommand:
    """Common part: which joints are commanded, and where the tip then is.

    Args:
        field: its names are arm joints; the others hold their position.
        robot: gives the joints and the kinematics.
        limiter: of the arm's joints.

    Raises:
        ContractError: a name is no arm joint.
    """

    def __init__(self, field: ActionField, robot: Robot, limiter: JointLimiter) -> None:
        for name in field.names:
            if name not in robot.arm_joints:
                raise ContractError(
                    f"action '{field.name}' names joint '{name}'",
                    expected=f"an arm joint of robot '{robot.name}'",
                    remedy=nearest(name, robot.arm_joints),
                )
        self.chain, self.limiter = robot.chain, limiter
        self._columns = np.array([robot.arm_joints.index(name) for name in field.names])
        self._scale = np.array([[scale] for scale in field.scale])

    def _state(self, joints: Array, velocity: Array) -> ArmState:
        position, rotation = self.chain.forward_columns(joints)
        return ArmState(joints, velocity, position, arctangent2(rotation[1, 0], rotation[0, 0]))


class JointPosition(JointCommand):
    """The action times its scale is the position to go to, in rad."""

    def step(self, state: ArmState, action: Array) -> ArmState:
        """Return the commanded state one control period on; see ArmCommand."""
        goal = state.joints.copy()
        goal[self._columns] = self._scale * action
        return self._state(*self.limiter.towards(state.joints, state.velocity, goal))


class JointDelta(JointCommand):
    """The action times its scale is the angle to turn by in this period, in rad.

    What the acceleration limit does not allow now is not made up for later: the commanded
    position is all there is, so nothing winds up.
    """

    def step(self, state: ArmState, action: Array) -> ArmState:
        """Return the commanded state one control period on; see ArmCommand."""
        desired = np.zeros_like(state.joints)
        desired[self._columns] = self._scale * action / self.limiter.period_s
        return self._state(*self.limiter.at_velocity(state.joints, state.velocity, desired))
