"""The script that picks up a cube and puts it down: the demonstrator of pick_place and stack."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

CUBE_HALF = 0.02
HOVER_HEIGHT = 0.10
"""Height of the tip above what the cube stands on and is put on, while it travels, m."""
BESIDE, NEAR = 0.012, 0.03
"""How far from the cube's axis the tip may be to descend, and to go on descending, m."""


@dataclasses.dataclass(frozen=True)
class PickScript:
    """Travel, align, descend, grasp, lift, carry, lower, release.

    Every phase is recognised from the scene and the gripper's command, so the script can take
    over from any state.

    Attributes:
        step_m: translation of an action of 1.
        tolerance_m: how far from the goal the cube may be put.
        clearance_m: what the tip rises to before it travels, above what it just left.
    """

    step_m: float
    tolerance_m: float
    clearance_m: float = 0.0

    def action(
        self,
        cube: Tensor,
        goal: Tensor,
        turn: Tensor,
        tip: Tensor,
        opening: Tensor,
        controller_state: Mapping[str, Tensor],
    ) -> Tensor:
        """Return x, y, z, yaw and gripper (N, 5) in [-1, 1].

        Args:
            cube: (N, 3) its centre. goal: (N, 3) the point that it is put down on.
            turn: (N,) action that aligns the fingers with the cube.
            tip: (N, 3) measured. opening: (N,) of the fingers, measured.
            controller_state: what is commanded.
        """
        closed = controller_state["gripper"][:, 0] < 0.5
        to_cube = torch.linalg.vector_norm((cube - tip)[:, :2], dim=-1)
        cube_to_goal = torch.linalg.vector_norm((cube - goal)[:, :2], dim=-1)
        beside_cube = (to_cube < BESIDE) & ((tip - cube)[:, 2].abs() < BESIDE)
        gripping = closed & beside_cube.logical_or((cube - tip).norm(dim=-1) < 0.025)
        firm = gripping & (opening < CUBE_HALF + 0.002)
        support = goal[:, 2]
        lowered = tip[:, 2] < support + HOVER_HEIGHT - 0.04
        over_goal = cube_to_goal < self.tolerance_m * torch.where(lowered, 0.8, 0.48)
        down = cube[:, 2] < support + CUBE_HALF + 0.004

        target = self._approach(cube, tip, to_cube)
        target = torch.where(gripping.unsqueeze(1), tip, target)
        carry = goal + (tip - cube) * torch.tensor([1.0, 1.0, 0.0])
        bottom = support + CUBE_HALF + 0.001 + (tip - cube)[:, 2]
        carry[:, 2] = torch.where(over_goal, bottom, support + HOVER_HEIGHT - 0.02)
        low = (cube[:, 2] < support + 0.045) & (cube_to_goal > 0.03)
        rise = torch.cat([tip[:, :2], carry[:, 2:]], dim=-1)
        carry = torch.where(low.unsqueeze(1), rise, carry)
        target = torch.where(firm.unsqueeze(1), carry, target)

        at_rest = (tip - controller_state["tip"]).norm(dim=-1) < 0.012
        release = firm & over_goal & down & at_rest
        grasp = ~closed & beside_cube & at_rest & (cube_to_goal > 0.02)
        close = (gripping & ~release) | grasp
        delta = (target - controller_state["tip"]) / self.step_m
        gripper = torch.where(close, -1.0, 1.0).to(delta.dtype)
        turn = turn * (~gripping)
        action = torch.cat([delta, turn.unsqueeze(1), gripper.unsqueeze(1)], dim=-1)
        return action.clamp(-1.0, 1.0)

    def _approach(self, cube: Tensor, tip: Tensor, to_cube: Tensor) -> Tensor:
        """Return where the tip goes to grasp (N, 3): above the cube, then down to it."""
        centre = cube[:, 2]
        above = torch.full_like(centre, HOVER_HEIGHT + self.clearance_m)
        target = torch.cat([cube[:, :2], above.unsqueeze(1)], dim=-1)
        is_over = (to_cube < BESIDE) | ((to_cube < NEAR) & (tip[:, 2] < 0.06))
        grasp = torch.where(centre > 2.0 * CUBE_HALF, centre, CUBE_HALF)
        target[:, 2] = torch.where(is_over, grasp, target[:, 2])
        if self.clearance_m == 0.0:
            return target
        stuck = ~is_over & (to_cube > NEAR) & (tip[:, 2] < above - 0.03)
        rise = torch.cat([tip[:, :2], above.unsqueeze(1)], dim=-1)
        chosen: Tensor = torch.where(stuck.unsqueeze(1), rise, target)
        return chosen
