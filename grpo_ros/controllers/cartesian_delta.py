"""cartesian_delta: translations and a yaw of the tip, which keeps pointing down."""

from __future__ import annotations

import numpy as np

from grpo_ros.contract import ActionField, Contract
from grpo_ros.controllers.arm_command import ArmState
from grpo_ros.controllers.joint_limiter import JointLimiter
from grpo_ros.elementary import Array, arctangent2, sine_cosine
from grpo_ros.errors import ContractError
from grpo_ros.robots.kinematics import damped_least_squares, rotation_error
from grpo_ros.robots.robot import Robot

LEASH_STEPS = 2.0
"""How many full actions the commanded tip may be ahead of where the commanded joints put it."""

FREE_JOINTS = 6
"""With fewer joints an arm cannot keep pointing down wherever its tip is led."""
DAMPING = 0.02
HOME_PULL = 0.05
"""Part of the way home that the arm takes per period where the tip's pose leaves a choice."""


class CartesianDelta:
    """Integrates a commanded pose and follows it by damped least squares, one step per period.

    Args:
        field: four components: x, y, z (m) and yaw (rad).
        contract: gives the workspace.
        robot: gives the kinematics and home.
        limiter: of the arm's joints.

    Raises:
        ContractError: wrong components, frame or tip, a workspace that is missing, or too few
            joints.
    """

    def __init__(
        self, field: ActionField, contract: Contract, robot: Robot, limiter: JointLimiter
    ) -> None:
        _check(field, contract, robot)
        self.chain, self.limiter = robot.chain, limiter
        bounds = [contract.workspace[axis] for axis in ("x", "y", "z")]
        self._lower = np.array([[low] for low, _ in bounds])
        self._upper = np.array([[high] for _, high in bounds])
        self._scale = np.array([[scale] for scale in field.scale[:3]])
        self._yaw_scale = field.scale[3]
        self._leash = LEASH_STEPS * field.clip * np.abs(self._scale)
        self._yaw_leash = LEASH_STEPS * field.clip * abs(self._yaw_scale)
        self._home = robot.home[: len(robot.arm_joints), None].numpy()

    def step(self, state: ArmState, action: Array) -> ArmState:
        """Return the commanded state one control period on; see ArmCommand."""
        posed = self.chain.pose(state.joints)
        tip = self._moved(state.tip, self._scale * action[:3], posed.position)
        yaw = state.yaw + self._yaw_scale * action[3]
        sine, cosine = sine_cosine(yaw)
        yaw = yaw + self._yaw_excess(sine, cosine, posed.rotation)
        sine, cosine = sine_cosine(yaw)
        error = np.empty((6, tip.shape[1]))
        error[:3] = tip - posed.position
        error[3:] = rotation_error(posed.rotation, _pointing_down(sine, cosine))
        pull = HOME_PULL * (self._home - state.joints)
        goal = state.joints + damped_least_squares(posed.jacobian, error, DAMPING, pull)
        joints, velocity = self.limiter.towards(state.joints, state.velocity, goal)
        return ArmState(joints, velocity, tip, yaw)

    def _moved(self, tip: Array, delta: Array, reached: Array) -> Array:
        """Return the commanded tip, within the workspace and on its leash."""
        # A tip that starts outside the workspace is not pulled in, only kept from going out.
        lower, upper = np.minimum(tip, self._lower), np.maximum(tip, self._upper)
        moved = np.clip(tip + delta, reached - self._leash, reached + self._leash)
        return np.clip(moved, lower, upper)

    def _yaw_excess(self, sine: Array, cosine: Array, reached: Array) -> Array:
        """Return what to add to the commanded yaw to keep it on its leash."""
        x, y = reached[0, 0], reached[1, 0]
        ahead = arctangent2(sine * x - cosine * y, cosine * x + sine * y)
        excess: Array = np.clip(ahead, -self._yaw_leash, self._yaw_leash) - ahead
        return excess


def _pointing_down(sine: Array, cosine: Array) -> Array:
    """Return rotations (3, 3, N) with z down and x heading along the yaw."""
    rotation = np.zeros((3, 3, sine.shape[0]))
    rotation[0, 0], rotation[1, 0] = cosine, sine
    rotation[0, 1], rotation[1, 1] = sine, -cosine
    rotation[2, 2] = -1.0
    return rotation


def _check(field: ActionField, contract: Contract, robot: Robot) -> None:
    if len(robot.arm_joints) < FREE_JOINTS:
        raise ContractError(
            f"action '{field.name}' is cartesian_delta of robot '{robot.name}' with "
            f"{len(robot.arm_joints)} arm joints",
            expected=f"{FREE_JOINTS} or more, to point down at any yaw",
            remedy="joint_delta and joint_position command any arm",
        )
    if field.size != 4:
        raise ContractError(
            f"action '{field.name}' has components {list(field.names)}",
            expected="four for cartesian_delta: x, y, z, yaw",
        )
    for key, known in (("frame", robot.base_frame), ("tip", robot.tip_frame)):
        value = getattr(field, key)
        if value not in ("", known):
            raise ContractError(
                f"action '{field.name}' has {key} '{value}'",
                expected=f"'{known}', the {key} of robot '{robot.name}'",
            )
    for axis in ("x", "y", "z"):
        low, high = contract.workspace.get(axis, (0.0, 0.0))
        if not low < high:
            raise ContractError(
                f"workspace.{axis} is {contract.workspace.get(axis)}",
                expected="[lower, upper] in m, since the action is cartesian_delta",
            )
