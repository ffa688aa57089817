"""What the newton backend needs of its solver beyond Isaac Lab's public interface.

Isaac Lab and mujoco-warp are pinned for this module's sake.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from grpo_ros.errors import SimulatorError

MIN_WORLDS = 4
"""On the CPU mujoco-warp splits the sums of a world of more than 32 degrees of freedom among
6 // worlds groups, so that up to three worlds round otherwise than any larger number: fewer
environments get idle company, and one does the same alone as in a batch."""


class NewtonSolver:
    """Newton's MuJoCo-Warp solver inside Isaac Lab, where the backend has one.

    Args:
        sim: Isaac Lab's simulation context, after its reset.
        num_envs: N.

    Attributes:
        warm_size: numbers of an environment's warm start; 0 where there is no such solver.
    """

    def __init__(self, sim: Any, num_envs: int) -> None:
        self._solver: Any = None
        self._data: Any = None
        self._warm_start = torch.zeros(num_envs, 0)
        if "Newton" in sim.physics_manager.__name__:
            solver: Any = getattr(sim.physics_manager, "_solver", None)
            self._data = getattr(solver, "mjw_data", None)
            if self._data is None:
                raise SimulatorError(
                    "Isaac Lab's Newton solver has no `mjw_data`",
                    expected="isaaclab 3.0.0 with mujoco-warp 3.12",
                    remedy="run `make isaaclab` again",
                )
            self._solver = solver
            _forget_earlier_simulations()
            import warp

            self._warm_start = warp.to_torch(self._data.qacc_warmstart)
        self.warm_size = self._warm_start.shape[1]

    def read_warm_start(self) -> Tensor:
        """Return `qacc_warmstart` (N, warm_size) of all environments.

        Isaac Lab clears it in every environment whose state is written, so that a restored episode
        would leave the path of the one that was not interrupted.
        """
        return self._warm_start

    def write_warm_start(self, ids: Tensor, values: Tensor) -> None:
        """Put the warm start (n, warm_size) into environments (n,)."""
        if self.warm_size:
            self._warm_start[ids.long()] = values

    def compute_boxes_as_primitives(self) -> None:
        """Find the contacts of two boxes as MuJoCo on the CPU does: up to eight, over the face.

        mujoco-warp's default for them, its convex routine, often gives a gripped box a single
        contact per finger: the pads sink in by 5 mm, and the peg of `insert` turns and drops
        (demonstrator 0.33 instead of 1.00).
        """
        if self._solver is not None:
            from mujoco_warp import DisableBit

            self._solver.mjw_model.opt.disableflags |= int(DisableBit.NATIVECCD)


def _forget_earlier_simulations() -> None:
    """Empty mujoco-warp's list of the pairs of shapes that any simulation of the process had.

    A simulation that finds contacts of boxes by the convex routine would otherwise find them a
    second time by the box routine of one before it. A process holds one simulation at a time.
    """
    from mujoco_warp._src import collision_primitive

    collision_primitive._PRIMITIVE_COLLISION_TYPES.clear()
    collision_primitive._PRIMITIVE_COLLISION_FUNC.clear()
