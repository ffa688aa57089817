"""Settings of the simulated robot's controllers, with the defaults of Jazzy's ros2_controllers."""

from __future__ import annotations

import dataclasses

from grpo_ros import typed


@dataclasses.dataclass(frozen=True)
class ControllerSettings:
    """Parameters that ros2_controllers has too; a tolerance of 0 is not watched."""

    interpolate_from_desired_state: bool = typed.setting(
        False, "A trajectory begins at what was commanded last, not at what is measured"
    )
    allow_partial_joints_goal: bool = typed.setting(
        False, "Take trajectories of some of the joints; the others keep their command"
    )
    allow_nonzero_velocity_at_trajectory_end: bool = typed.setting(
        False, "Take trajectories whose last point moves"
    )
    path_tolerance: float = typed.setting(
        0.0, "Per joint, on the way (constraints.<joint>.trajectory), rad or m", minimum=0.0
    )
    goal_tolerance: float = typed.setting(
        0.0, "Per joint, at the end (constraints.<joint>.goal), rad or m", minimum=0.0
    )
    goal_time_s: float = typed.setting(
        0.0, "Longest wait for the end's tolerance; 0: for ever", unit="s", minimum=0.0
    )
    gripper_goal_tolerance_m: float = typed.setting(
        0.01, "Distance at which the gripper has arrived", unit="m", minimum=0.0
    )
    gripper_stall_velocity_m_s: float = typed.setting(
        0.001, "A gripper that is not faster may have stalled", unit="m/s", minimum=0.0
    )
    gripper_stall_timeout_s: float = typed.setting(
        1.0, "After so long it has", unit="s", minimum=0.0
    )
    gripper_allow_stalling: bool = typed.setting(
        False, "A goal that ends in a stall has succeeded; else it is aborted"
    )
    cmd_vel_timeout_s: float = typed.setting(
        0.5, "A base stops when its newest command is older; 0: at once", unit="s", minimum=0.0
    )
