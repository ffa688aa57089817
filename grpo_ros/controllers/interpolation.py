"""Joint targets between two control periods."""

from __future__ import annotations

import torch
from torch import Tensor


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
