"""ActionController: from an action to the joint targets at the end of a control period."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from grpo_ros.contract import ActionField, Contract
from grpo_ros.controllers.arm_command import ArmCommand, ArmState
from grpo_ros.controllers.cartesian_delta import CartesianDelta
from grpo_ros.controllers.interpolation import interpolate, smooth
from grpo_ros.controllers.joint_command import JointDelta, JointPosition
from grpo_ros.controllers.joint_limiter import JointLimiter
from grpo_ros.controllers.twist import Twist
from grpo_ros.elementary import Array, arctangent2
from grpo_ros.errors import ContractError, nearest
from grpo_ros.robots.kinematics import columns, rows
from grpo_ros.robots.robot import Robot

ControllerState = Mapping[str, Tensor]
"""What is commanded; float64 on the CPU, one row per environment.

target: (N, J) joint positions at the end of the period, rad or m.
velocity: (N, J) their velocity, rad/s; 0 for the gripper, whose target steps.
tip: (N, 3) position of the tip in the base frame, m.
yaw: (N, 1) of the tip, rad.
gripper: (N, 1) opening, 0 closed to 1 open.
"""


class ActionController:
    """Turns actions into joint targets within the contract's limits; holds no state.

    Row i of a result depends on row i of the arguments alone, bit for bit, in any batch size.

    Args:
        contract: its action fields, limits, workspace and rate.
        robot: whose joints are commanded.

    Raises:
        ContractError: the contract asks for what this robot or this version cannot do.
    """

    def __init__(self, contract: Contract, robot: Robot) -> None:
        _check_limits(contract, robot)
        self.contract, self.robot = contract, robot
        self.action_size = contract.action_size
        self.joint_names = robot.joint_names
        self._num_arm = len(robot.arm_joints)
        self.limiter = JointLimiter(contract.limits[: self._num_arm], contract.period_s)
        self._arm: ArmCommand | None = None
        self._arm_columns = self._gripper_columns = slice(0, 0)
        start = 0
        for field in contract.action:
            self._add(field, slice(start, start + field.size))
            start += field.size
        self._clip = np.array([[a.clip] for a in contract.action for _ in range(a.size)])

    def _add(self, field: ActionField, part: slice) -> None:
        """Take up one action field, whose components are those of `part`."""
        if field.reference != "commanded":
            raise ContractError(
                f"action '{field.name}' has reference '{field.reference}'",
                expected="'commanded': the controller does not see measurements",
            )
        if field.kind == "gripper":
            self._add_gripper(field, part)
            return
        if self._arm is not None:
            raise ContractError(
                f"action '{field.name}' is a second command of the arm", expected="one arm action"
            )
        self._arm, self._arm_columns = self._arm_command(field), part

    def _arm_command(self, field: ActionField) -> ArmCommand:
        match field.kind:
            case "cartesian_delta":
                return CartesianDelta(field, self.contract, self.robot, self.limiter)
            case "joint_delta":
                return JointDelta(field, self.robot, self.limiter)
            case "joint_position":
                return JointPosition(field, self.robot, self.limiter)
            case "twist":
                return Twist(field, self.robot, self.limiter)
        raise ContractError(
            f"action '{field.name}' of kind '{field.kind}' is not known",
            expected="cartesian_delta | joint_delta | joint_position | twist | gripper",
        )

    def _add_gripper(self, field: ActionField, part: slice) -> None:
        gripper = self.robot.gripper
        if gripper is None:
            raise ContractError(
                f"action '{field.name}' commands a gripper",
                expected=f"none, since robot '{self.robot.name}' has no gripper",
            )
        if field.names != (gripper.joint,):
            raise ContractError(
                f"action '{field.name}' names {list(field.names)}",
                expected=f"['{gripper.joint}'], the gripper's driver joint",
            )
        if self._gripper_columns != slice(0, 0):
            raise ContractError(
                f"action '{field.name}' is a second gripper command", expected="one"
            )
        self._gripper_columns = part

    def reset(self, joint_position: Tensor) -> dict[str, Tensor]:
        """Return the state that commands what is measured.

        A gripper that no action commands is closed, and holds what it has between its fingers.

        Args:
            joint_position: (N, J) measured, in the order of `joint_names`.
        """
        target = self._checked(joint_position, len(self.joint_names), "joint position")
        position, rotation = self.robot.chain.forward_columns(target[: self._num_arm])
        opening: Array = np.ones((1, target.shape[1]))
        gripper = self.robot.gripper
        if gripper is not None and self._gripper_columns == slice(0, 0):
            target = target.copy()
            target[self._num_arm] = gripper.closed_position_m
            opening = np.zeros_like(opening)
        elif gripper is not None:
            span = gripper.open_position_m - gripper.closed_position_m
            measured = (target[self._num_arm :] - gripper.closed_position_m) / span
            opening = np.clip(measured, 0.0, 1.0)
        return _state(
            target,
            np.zeros_like(target),
            position,
            arctangent2(rotation[1, 0], rotation[0, 0])[None],
            opening,
        )

    def step(self, state: ControllerState, action: Tensor) -> dict[str, Tensor]:
        """Return the state one control period on; its target is that of the period's end.

        Args:
            state: what is commanded so far.
            action: (N, A); components beyond their field's `clip` are clipped.

        Raises:
            ContractError: an action is not finite, or of another size.
        """
        wanted = self._wanted(action)
        arm = self._arm_state(state)
        if self._arm is not None:
            arm = self._arm.step(arm, wanted[self._arm_columns])
        next_target, next_velocity = self._after(state, arm)
        opening = columns(state["gripper"])
        gripper = self.robot.gripper
        if gripper is not None and self._gripper_columns != slice(0, 0):
            is_open = wanted[self._gripper_columns] >= 0.0
            opening = np.where(is_open, 1.0, 0.0)
            next_target[self._num_arm] = np.where(
                is_open[0], gripper.open_position_m, gripper.closed_position_m
            )
        return _state(next_target, next_velocity, arm.tip, arm.yaw[None], opening)

    def twist(self, state: ControllerState, action: Tensor) -> Tensor | None:
        """Return the velocities (N, 2) that an action makes of a base, within limits.

        Forward, m/s, and turning, rad/s; None where no action is a twist. To `drive` with them
        equals `step` with the action, bit for bit.

        Args:
            state: what is commanded so far.
            action: (N, A), as for `step`.
        """
        if not isinstance(self._arm, Twist):
            return None
        wanted = self._wanted(action)
        return rows(self._arm.limited(self._arm_state(state), wanted[self._arm_columns]))

    def drive(self, state: ControllerState, twist: Tensor) -> dict[str, Tensor]:
        """Return the state after one control period at velocities (N, 2) of a base.

        Raises:
            ContractError: no action is a twist, or a velocity is not finite.
        """
        if not isinstance(self._arm, Twist):
            raise ContractError("a twist was given", expected="a contract whose action is one")
        arm = self._arm.drive(self._arm_state(state), self._checked(twist, 2, "twist"))
        target, velocity = self._after(state, arm)
        return _state(target, velocity, arm.tip, arm.yaw[None], columns(state["gripper"]))

    def interpolate(
        self, before: ControllerState, state: ControllerState, num_substeps: int
    ) -> Tensor:
        """Return the targets (N, num_substeps, J) within a period; the gripper's steps at once.

        Args:
            before: at the period's start. state: at its end.
            num_substeps: how many targets.
        """
        column = None if self.robot.gripper is None else self._num_arm
        if self.contract.motion == "linear":
            return interpolate(before["target"], state["target"], num_substeps, column)
        return smooth(
            before["target"],
            before["velocity"],
            state["target"],
            self.contract.period_s,
            num_substeps,
            column,
        )

    def moved_to(self, before: ControllerState, target: Tensor) -> dict[str, Tensor]:
        """Return the state after a period in which joint targets (N, J) were given themselves."""
        state = {**before, "target": target}
        if self.contract.motion == "smooth":
            state["velocity"] = (target - before["target"]) / self.contract.period_s
            state["velocity"][:, self._num_arm :] = 0.0
        return state

    def _wanted(self, action: Tensor) -> Array:
        """Return an action's components (A, N), clipped."""
        return np.clip(self._checked(action, self.action_size, "action"), -self._clip, self._clip)

    def _arm_state(self, state: ControllerState) -> ArmState:
        return ArmState(
            columns(state["target"])[: self._num_arm],
            columns(state["velocity"])[: self._num_arm],
            columns(state["tip"]),
            columns(state["yaw"])[0],
        )

    def _after(self, state: ControllerState, arm: ArmState) -> tuple[Array, Array]:
        """Return target and velocity (J, N) with another state of the arm; others keep theirs."""
        before = columns(state["target"])
        target, velocity = before.copy(), np.zeros_like(columns(state["velocity"]))
        target[: self._num_arm], velocity[: self._num_arm] = arm.joints, arm.velocity
        if self.contract.motion == "smooth":  # of the targets themselves: see `moved_to`
            moved = arm.joints - before[: self._num_arm]
            velocity[: self._num_arm] = moved / self.contract.period_s
        return target, velocity

    def _checked(self, values: Tensor, size: int, what: str) -> Array:
        if values.ndim != 2 or values.shape[1] != size:
            raise ContractError(f"{what} has shape {tuple(values.shape)}", expected=f"(N, {size})")
        array = columns(values)
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=0))[0])
            raise ContractError(
                f"{what} of row {row} is {values[row].tolist()}", expected="finite numbers"
            )
        return array


def make_controller(contract: Contract, robot: Robot) -> ActionController:
    """Return the controller of a contract's actions for a robot.

    Raises:
        ContractError: the contract asks for what this robot or this version cannot do.
    """
    return ActionController(contract, robot)


def _state(
    target: Array, velocity: Array, tip: Array, yaw: Array, opening: Array
) -> dict[str, Tensor]:
    return {
        "target": rows(target),
        "velocity": rows(velocity),
        "tip": rows(tip),
        "yaw": rows(yaw),
        "gripper": rows(opening),
    }


def _check_limits(contract: Contract, robot: Robot) -> None:
    """Raise ContractError where the contract's limits do not fit the robot."""
    for name in contract.joint_names:
        if name not in robot.joint_names:
            raise ContractError(
                f"limits name joint '{name}'",
                expected=f"a commanded joint of robot '{robot.name}'",
                remedy=nearest(name, robot.joint_names),
            )
    if contract.joint_names != robot.joint_names:
        raise ContractError(
            f"limits are of joints {list(contract.joint_names)}",
            expected=f"{list(robot.joint_names)}, the commanded joints of robot '{robot.name}'",
        )
    for asked, given in zip(contract.limits, robot.limits, strict=True):
        for key in ("velocity", "acceleration"):
            value, most = getattr(asked, key), getattr(given, key)
            if not 0.0 < value <= most:
                raise ContractError(
                    f"limits of '{asked.name}' have {key} {value}",
                    expected=f"within (0, {most}] of robot '{robot.name}'",
                )
        if not given.lower <= asked.lower < asked.upper <= given.upper:
            raise ContractError(
                f"limits of '{asked.name}' are [{asked.lower}, {asked.upper}]",
                expected=f"within [{given.lower}, {given.upper}] of robot '{robot.name}'",
            )
