"""Gripper targets: sent when the binary command changes, and within the gripper's limits."""

from __future__ import annotations

from grpo_ros.contract import Contract, JointLimits
from grpo_ros.deployment.answers import GripperTarget
from grpo_ros.deployment.chunk_executor import ControllerState
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.safety.stream_gate import Intervention
from grpo_ros.deployment.safety.twist_gate import TwistGate
from grpo_ros.robots.robot import Robot


class GripperTargets:
    """Turns a commanded opening into targets of the gripper's driver joint.

    Args:
        contract: may have no gripper action.
        robot: may have no gripper.
    """

    def __init__(self, contract: Contract, robot: Robot) -> None:
        self._gripper = robot.gripper
        self.limit: JointLimits | None = None
        """Of the driver joint; None where no gripper is commanded."""
        if robot.gripper is not None and any(a.kind == "gripper" for a in contract.action):
            by_name = {limit.name: limit for limit in contract.limits}
            self.limit = by_name.get(robot.gripper.joint)
        self._opening: float | None = None

    def forget(self) -> None:
        """Begin a run: the next opening is a change."""
        self._opening = None

    def of(
        self, state: ControllerState, gate: SafetyGate | TwistGate
    ) -> tuple[GripperTarget | None, tuple[Intervention, ...]]:
        """Return the target of a step where it changes, and what the gate refused.

        Args:
            state: of the controller after the step; its gripper is 0 closed to 1 open.
            gate: that has to let it through; that of a base has no gripper.
        """
        gripper = self._gripper
        if gripper is None or self.limit is None or isinstance(gate, TwistGate):
            return None, ()
        opening = float(state["gripper"][0, 0])
        if opening == self._opening:
            return None, ()
        self._opening = opening
        span = gripper.open_position_m - gripper.closed_position_m
        target = GripperTarget(gripper.closed_position_m + opening * span, gripper.max_effort_n)
        may_pass, refused = gate.admit_gripper(target.position, target.max_effort, self.limit)
        return (target if may_pass else None), refused
