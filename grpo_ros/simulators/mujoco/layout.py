"""Rows and columns of the MuJoCo simulator: what its state is, and where it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.physics import joint_sources
from grpo_ros.simulators.rows import placed_bodies
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.scene_state import SceneState

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS
MOCAP = mujoco.mjtState.mjSTATE_MOCAP_POS.value | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value


FREE_TO_XYZW = torch.tensor([0, 1, 2, 4, 5, 6, 3])
"""Columns of a free joint's seven numbers (x y z, then w x y z), quaternion last as x y z w."""
XYZW_TO_FREE = torch.tensor([0, 1, 2, 6, 3, 4, 5])
"""The other way round."""


class FreeVelocities(Mapping[str, Tensor]):
    """Velocities (n, 6) of free bodies, computed when asked for: few are, and often.

    A free joint's own angular velocity is along the body's axes; here it is along the world's.

    Args:
        physics: (n, S). qpos, qvel: body -> its columns.
    """

    def __init__(
        self, physics: Tensor, qpos: Mapping[str, Tensor], qvel: Mapping[str, Tensor]
    ) -> None:
        self._physics, self._qpos, self._qvel = physics, qpos, qvel

    def __getitem__(self, name: str) -> Tensor:
        velocity = self._physics[:, self._qvel[name]]
        quaternion = self._physics[:, self._qpos[name][FREE_TO_XYZW[3:]]]
        angular = rotations.rotate(quaternion, velocity[:, 3:])
        return torch.cat([velocity[:, :3], angular], dim=-1)

    def __iter__(self) -> Iterator[str]:
        return iter(self._qvel)

    def __len__(self) -> int:
        return len(self._qvel)


class Layout:
    """Columns of joints and bodies in the physics state (time, qpos, qvel, ...).

    Attributes:
        qpos: all columns of qpos. joint_qpos, joint_qvel: of the commanded joints, in order.
        mimics: (mimic column, driver column) pairs.
        all_joints: joint -> columns in qpos and qvel, those that mimic another included.
        free_qpos, free_qvel: body -> columns of bodies that physics moves.
        free_bodies: their body ids in the model.
        mocap_rows: rows of placed bodies that are mocap bodies in the model.
        has_obstacles: whether any of these is touched by what moves.
        control_spec: what physics is given in every step, as bits of mjtState.
    """

    def __init__(self, model: mujoco.MjModel, robot: Robot, bodies: Sequence[Body]) -> None:
        qpos, qvel = 1, 1 + model.nq
        self.joint_names = robot.joint_names
        self.state_size = mujoco.mj_stateSize(model, STATE.value)
        self.qpos = torch.arange(qpos, qpos + model.nq)
        joints = [model.joint(name) for name in self.joint_names]
        self.joint_qpos = torch.tensor([qpos + int(joint.qposadr[0]) for joint in joints])
        self.joint_qvel = torch.tensor([qvel + int(joint.dofadr[0]) for joint in joints])
        self.mimics: list[tuple[int, int]] = []
        if robot.gripper is not None:
            driver = qpos + int(model.joint(robot.gripper.joint).qposadr[0])
            for name in robot.gripper.mimic_joints:
                self.mimics.append((qpos + int(model.joint(name).qposadr[0]), driver))
        self._gripper = robot.gripper
        names = [*self.joint_names, *(robot.gripper.mimic_joints if robot.gripper else ())]
        self.all_joints = {
            name: (qpos + int(joint.qposadr[0]), qvel + int(joint.dofadr[0]))
            for name, joint in zip(names, map(model.joint, names), strict=True)
        }
        self.free_qpos: dict[str, Tensor] = {}
        self.free_qvel: dict[str, Tensor] = {}
        for body in bodies:
            if body.motion == "dynamic":
                joint = model.joint(f"{body.name}_free")
                self.free_qpos[body.name] = qpos + int(joint.qposadr[0]) + torch.arange(7)
                self.free_qvel[body.name] = qvel + int(joint.dofadr[0]) + torch.arange(6)
        self.free_bodies = [model.body(name).id for name in self.free_qpos]
        placed = placed_bodies(bodies)
        self.mocap_rows = [i for i, body in enumerate(placed) if body.motion == "kinematic"]
        self.has_obstacles = any(not placed[i].visual_only for i in self.mocap_rows)
        spec = mujoco.mjtState.mjSTATE_CTRL.value
        self.control_spec = spec | MOCAP if self.has_obstacles else spec

    def start(self, initial: SceneState, model: mujoco.MjModel) -> Tensor:
        """Return physics rows (n, S) of scenes at rest: joints, mimics and free bodies placed."""
        physics = torch.zeros(initial.num_envs, self.state_size, dtype=torch.float64)
        physics[:, self.qpos] = torch.from_numpy(model.qpos0)
        physics[:, self.joint_qpos] = initial.joints(self.joint_names).to(torch.float64)
        for mimic, driver in self.mimics:
            physics[:, mimic] = physics[:, driver]
        for name, columns in self.free_qpos.items():
            physics[:, columns] = initial.poses[name].to(torch.float64)[:, XYZW_TO_FREE]
        return physics

    def control(self, targets: Tensor, placed: Tensor) -> NDArray[np.float64]:
        """Return what `control_spec` says (n, K, C) of targets (n, K, J) and poses (n, B, 7)."""
        if not self.has_obstacles:
            return np.ascontiguousarray(targets.numpy())
        mocap = placed[:, self.mocap_rows]
        poses = [mocap[..., :3].flatten(1), mocap[..., [6, 3, 4, 5]].flatten(1)]
        constant = torch.cat(poses, dim=1).unsqueeze(1)
        parts = [targets, constant.expand(-1, targets.shape[1], -1)]
        return np.ascontiguousarray(torch.cat(parts, dim=2).numpy())

    def scene(self, physics: Tensor) -> SceneState:
        """Return joints and free bodies of physics rows (n, S)."""
        return SceneState(
            self.joint_names,
            physics[:, self.joint_qpos],
            physics[:, self.joint_qvel],
            {name: physics[:, cols[FREE_TO_XYZW]] for name, cols in self.free_qpos.items()},
            FreeVelocities(physics, self.free_qpos, self.free_qvel),
        )

    def full_scene(self, physics: Tensor) -> SceneState:
        """Return `scene` with the joints that mimic another."""
        columns = torch.tensor(list(self.all_joints.values()))
        return dataclasses.replace(
            self.scene(physics),
            joint_names=tuple(self.all_joints),
            joint_position=physics[:, columns[:, 0]],
            joint_velocity=physics[:, columns[:, 1]],
        )

    def with_scene(self, physics: Tensor, scene: SceneState) -> Tensor:
        """Return physics rows (n, S) with the state that a scene gives; see `Physics`."""
        before, physics = self.scene(physics), physics.clone()
        for joint, source in joint_sources(scene, self._gripper).items():
            qpos, qvel = self.all_joints[joint]
            physics[:, qpos] = scene.joint_position[:, source].double()
            physics[:, qvel] = scene.joint_velocity[:, source].double()
        for name, columns in self.free_qpos.items():
            if name not in scene.poses and name not in scene.velocities:
                continue
            pose = scene.poses.get(name, before.poses[name]).double()
            velocity = scene.velocities.get(name, before.velocities[name]).double()
            angular = rotations.rotate(rotations.conjugate(pose[:, 3:]), velocity[:, 3:])
            physics[:, columns] = pose[:, XYZW_TO_FREE]
            physics[:, self.free_qvel[name]] = torch.cat([velocity[:, :3], angular], dim=-1)
        return physics
