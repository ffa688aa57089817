"""Joint targets between two control periods: along lines, or along the motion that is deployed."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.contract import MOTION_LEAD


def interpolate(
    previous_target: Tensor,
    target: Tensor,
    num_substeps: int,
    gripper_column: int | None = -1,
) -> Tensor:
    """Return the targets (N, num_substeps, J) float64 within one control period.

    Arm joints move linearly, as joint_trajectory_controller moves points that hold positions
    only; the gripper's joint steps at once. The last substep is `target` itself, bit for bit.

    Args:
        previous_target: (N, J) at the end of the period before.
        target: (N, J) at the end of this period.
        num_substeps: how many targets, evenly spaced.
        gripper_column: column of the gripper's joint; None if there is no gripper.
    """
    previous, target = previous_target.to(torch.float64), target.to(torch.float64)
    step = (target - previous) / num_substeps
    ramp = torch.arange(1, num_substeps + 1, dtype=torch.float64, device=target.device)
    targets = previous[:, None] + step[:, None] * ramp[None, :, None]
    targets[:, -1] = target
    if gripper_column is not None:
        targets[:, :, gripper_column] = target[:, None, gripper_column]
    return targets


def smooth(
    previous_target: Tensor,
    previous_velocity: Tensor,
    target: Tensor,
    period_s: float,
    num_substeps: int,
    gripper_column: int | None = -1,
    lead: float = MOTION_LEAD,
) -> Tensor:
    """Return the targets (N, num_substeps, J) float64 of the motion that is deployed.

    It is the lines averaged over a period T, begun late by a share of T, the lead. From then on
    the velocity ramps from that of the period before, d_0, to this period's, d_1:

        p(s) = q_0 - d_0 T / 2 + d_0 s + (d_1 - d_0) s^2 / (2 T),    d_1 = (q_1 - q_0) / T,

    the curve of `deployment.safety.curve` but for the time that a change of acceleration takes.
    Until then the arm goes on at d_0 (with fewer than 1 / lead substeps, none ends there).

    Args:
        previous_target: (N, J) q_0. previous_velocity: (N, J) d_0, per second.
        target: (N, J) q_1.
        period_s: T.
        num_substeps: how many targets, evenly spaced.
        gripper_column: column of the gripper's joint, which steps at once; None without one.
        lead: share of T.
    """
    previous, target = previous_target.to(torch.float64), target.to(torch.float64)
    before = previous_velocity.to(torch.float64)
    change = ((target - previous) / period_s - before) / period_s
    share = torch.arange(1, num_substeps + 1, dtype=torch.float64, device=target.device)
    time = ((share / num_substeps - lead) * period_s)[None, :, None]
    start = previous - before * (0.5 * period_s)
    ramped = (0.5 * change)[:, None] * time.clamp(min=0.0) * time
    targets = start[:, None] + before[:, None] * time + ramped
    if gripper_column is not None:
        targets[:, :, gripper_column] = target[:, None, gripper_column]
    return targets
