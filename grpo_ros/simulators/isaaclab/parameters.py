"""Physical parameters that differ between environments of one Isaac Lab scene, on Newton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_ros.simulators.rows import FRICTION, GAIN, MASS


class Parameters:
    """Scales masses, friction and servo gains of single environments from their nominal values.

    Args:
        sim: Isaac Lab's simulation context, after its reset.
        arm: the articulation. joints: (J,) its servo-driven joints.
        objects: the dynamic bodies.
    """

    def __init__(self, sim: Any, arm: Any, joints: Tensor, objects: Sequence[Any]) -> None:
        import warp

        self._manager, self._arm, self._objects = sim.physics_manager, arm, tuple(objects)
        self._joints = joints.to(arm.device, torch.int32)
        self._stiffness = arm.data.joint_stiffness.torch[:, joints].clone()
        self._damping = arm.data.joint_damping.torch[:, joints].clone()
        self._masses = [each.data.body_mass.torch.clone() for each in objects]
        self._inertias = [each.data.body_inertia.torch.clone() for each in objects]
        model = self._manager.get_model()
        self._friction = warp.to_torch(model.shape_material_mu)
        self._nominal_friction = self._friction.clone()
        # Shapes of no environment are of world -1: they have the last factor, which stays 1.
        self._world_of_shape = warp.to_torch(model.shape_world).long()
        self._friction_factor = torch.ones(arm.num_instances + 1, device=arm.device)

    def scale(self, ids: Tensor, draws: Tensor) -> None:
        """Give environments (n,) their factors (n, 5); see `Rows.draws`."""
        from newton import ModelFlags

        device = self._arm.device
        envs, factors = ids.to(device, torch.int32), draws.float().to(device)
        gain, mass = factors[:, GAIN, None], factors[:, MASS, None]
        rows = ids.to(device)
        self._arm.write_joint_stiffness_to_sim_index(
            stiffness=self._stiffness[rows] * gain, joint_ids=self._joints, env_ids=envs
        )
        self._arm.write_joint_damping_to_sim_index(
            damping=self._damping[rows] * gain, joint_ids=self._joints, env_ids=envs
        )
        for each, masses, inertias in zip(
            self._objects, self._masses, self._inertias, strict=True
        ):
            each.set_masses_index(masses=masses[rows] * mass, env_ids=envs)
            each.set_inertias_index(inertias=inertias[rows] * mass[..., None], env_ids=envs)
        self._friction_factor[rows] = factors[:, FRICTION]
        self._friction.copy_(self._nominal_friction * self._friction_factor[self._world_of_shape])
        self._manager.add_model_change(ModelFlags.SHAPE_PROPERTIES)
