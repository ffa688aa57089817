"""Robots: one URDF and one YAML each, their limits and kinematics."""

from grpo_ros.robots.clearance import LinkClearance
from grpo_ros.robots.kinematics import SerialChain, manipulability, solve_ik
from grpo_ros.robots.robot import Gripper, Interfaces, Robot, known_robots, load_robot

__all__ = [
    "Gripper",
    "Interfaces",
    "LinkClearance",
    "Robot",
    "SerialChain",
    "known_robots",
    "load_robot",
    "manipulability",
    "solve_ik",
]
