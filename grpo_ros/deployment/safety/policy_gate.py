"""The gate that a policy's commands have to pass."""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_ros.contract import Contract
from grpo_ros.deployment.safety.gate import SafetyGate
from grpo_ros.deployment.safety.geometry import ArmGeometry
from grpo_ros.deployment.safety.twist_gate import TwistGate
from grpo_ros.robots.robot import Robot


def make_gate(
    contract: Contract,
    robot: Robot,
    period_s: float,
    position_margin: float = 0.0,
    tip_speed_m_s: float = 0.0,
    speed: float = 1.0,
) -> SafetyGate | TwistGate:
    """Return the gate of an arm, or of a base where the contract has a twist.

    Args:
        contract: its limits hold.
        robot: its safety section too.
        period_s: between two commands.
        position_margin: how far joints keep from their position limits, rad or m.
        tip_speed_m_s: cap of the tip's speed beside the robot's own; 0: none.
        speed: share of the trained speed, which caps velocities. Accelerations stay whole: the
            path in stretched time takes speed^2 of them, and all are there to brake.
    """
    limits = [contract.limits[contract.joint_names.index(name)] for name in robot.arm_joints]
    for action in contract.action:
        if action.kind == "twist":
            fastest = np.minimum(action.scale, [limits[0].velocity, limits[2].velocity])
            acceleration = np.array([limits[0].acceleration, limits[2].acceleration])
            return TwistGate(speed * fastest, acceleration, period_s)
    limits = [
        dataclasses.replace(
            limit,
            lower=limit.lower + position_margin,
            upper=limit.upper - position_margin,
            velocity=limit.velocity * speed,
        )
        for limit in limits
    ]
    caps = [cap for cap in (tip_speed_m_s, robot.safety.tip_speed_m_s) if cap > 0.0]
    return SafetyGate(limits, period_s, ArmGeometry(robot, period_s, min(caps, default=0.0)))
