"""Controllers: what turns an action into joint targets; batched, pure, row-independent."""

from grpo_ros.controllers.controller import ActionController, ControllerState, make_controller
from grpo_ros.controllers.interpolation import interpolate
from grpo_ros.controllers.joint_limiter import JointLimiter

__all__ = [
    "ActionController",
    "ControllerState",
    "JointLimiter",
    "interpolate",
    "make_controller",
]
