"""Rows and columns of the MuJoCo simulator: what its state is, and where it stands."""

from __future__ import annotations

import dataclasses

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState

STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS
MOCAP = mujoco.mjtState.mjSTATE_MOCAP_POS.value | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value


@dataclasses.dataclass
class Rows:
    """State of N environments; every attribute is an array with N rows.

    Attributes:
        physics: (N, S) float64, mjSTATE_FULLPHYSICS.
        placed: (N, B, 7) float64, poses of bodies that physics does not move (the goal).
        target, velocity, tip, yaw, gripper: the controller's state (controllers/).
        last_action: (N, A) float64, clipped, as executed.
        queue: (N, D, A) float64, actions on their way where action delay is on; oldest first.
        draws: (N, 5) float64, mass, friction and gain factors, delay in periods, noise (m).
        key: (N, 4) int64, whose observation noise this is.
        step_count: (N,) int64, control periods since reset.
        terminated, truncated, outcome: (N,) bool, latched. score: (N,) float32.
    """

    physics: Tensor
    placed: Tensor
    target: Tensor
    velocity: Tensor
    tip: Tensor
    yaw: Tensor
    gripper: Tensor
    last_action: Tensor
    queue: Tensor
    draws: Tensor
    key: Tensor
    step_count: Tensor
    terminated: Tensor
    truncated: Tensor
    outcome: Tensor
    score: Tensor


CONTROLLER_KEYS = ("target", "velocity", "tip", "yaw", "gripper")
MASS, FRICTION, GAIN, DELAY, NOISE = range(5)
MAX_DELAY = 2


FREE_TO_XYZW = torch.tensor([0, 1, 2, 4, 5, 6, 3])
"""Columns of a free joint's seven numbers (x y z, then w x y z), quaternion last as x y z w."""


class Layout:
    """Columns of joints and bodies in the physics state (time, qpos, qvel, ...).

    Attributes:
        qpos: all columns of qpos. joint_qpos, joint_qvel: of the commanded joints, in order.
        mimics: (mimic column, driver column) pairs.
        free_qpos, free_qvel: body -> columns of bodies that physics moves.
        free_bodies: their body ids in the model.
        placed_names: bodies that stay where they are put. placed_defaults: (B, 7) their poses.
        mocap_rows: rows of `placed` that are mocap bodies in the model.
        has_obstacles: whether any of these is touched by what moves.
        control_spec: what physics is given in every step, as bits of mjtState.
    """

    def __init__(self, model: mujoco.MjModel, task: Task) -> None:
        robot = task.robot
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
        self.free_qpos: dict[str, Tensor] = {}
        self.free_qvel: dict[str, Tensor] = {}
        placed = [body for body in task.bodies() if body.motion != "dynamic"]
        for body in task.bodies():
            if body not in placed:
                joint = model.joint(f"{body.name}_free")
                self.free_qpos[body.name] = qpos + int(joint.qposadr[0]) + torch.arange(7)
                self.free_qvel[body.name] = qvel + int(joint.dofadr[0]) + torch.arange(6)
        self.free_bodies = [model.body(name).id for name in self.free_qpos]
        self.placed_names = tuple(body.name for body in placed)
        self.placed_defaults = torch.tensor(
            [[*body.position, 0.0, 0.0, 0.0, 1.0] for body in placed], dtype=torch.float64
        ).reshape(-1, 7)
        kinematic = [body.motion == "kinematic" for body in placed]
        self.mocap_rows = [i for i, is_kinematic in enumerate(kinematic) if is_kinematic]
        self.has_obstacles = any(
            body.motion == "kinematic" and not body.visual_only for body in placed
        )
        spec = mujoco.mjtState.mjSTATE_CTRL.value
        self.control_spec = spec | MOCAP if self.has_obstacles else spec

    def control(self, targets: Tensor, placed: Tensor) -> NDArray[np.float64]:
        """Return what `control_spec` says (n, K, C) of targets (n, K, J) and poses (n, B, 7)."""
        if not self.has_obstacles:
            return np.ascontiguousarray(targets.numpy())
        mocap = placed[:, self.mocap_rows]
        poses = [mocap[..., :3].flatten(1), mocap[..., [6, 3, 4, 5]].flatten(1)]
        constant = torch.cat(poses, dim=1).unsqueeze(1)
        parts = [targets, constant.expand(-1, targets.shape[1], -1)]
        return np.ascontiguousarray(torch.cat(parts, dim=2).numpy())

    def scene(self, physics: Tensor, placed: Tensor) -> SceneState:
        """Return the scenes of physics rows (n, S) and placed poses (n, B, 7)."""
        poses, velocities = {}, {}
        for name, columns in self.free_qpos.items():
            poses[name] = physics[:, columns[FREE_TO_XYZW]]
            velocities[name] = physics[:, self.free_qvel[name]]
        for i, name in enumerate(self.placed_names):
            poses[name] = placed[:, i]
        return SceneState(
            self.joint_names,
            physics[:, self.joint_qpos],
            physics[:, self.joint_qvel],
            poses,
            velocities,
        )

    def empty_rows(self, num_envs: int, num_actions: int) -> Rows:
        """Return rows of environments that were never reset, hence finished."""
        double, num_joints = torch.float64, len(self.joint_names)
        return Rows(
            physics=torch.zeros(num_envs, self.state_size, dtype=double),
            placed=self.placed_defaults.repeat(num_envs, 1, 1),
            target=torch.zeros(num_envs, num_joints, dtype=double),
            velocity=torch.zeros(num_envs, num_joints, dtype=double),
            tip=torch.zeros(num_envs, 3, dtype=double),
            yaw=torch.zeros(num_envs, 1, dtype=double),
            gripper=torch.zeros(num_envs, 1, dtype=double),
            last_action=torch.zeros(num_envs, num_actions, dtype=double),
            queue=torch.zeros(num_envs, MAX_DELAY, num_actions, dtype=double),
            draws=torch.ones(num_envs, 5, dtype=double),
            key=torch.zeros(num_envs, 4, dtype=torch.long),
            step_count=torch.zeros(num_envs, dtype=torch.long),
            terminated=torch.ones(num_envs, dtype=torch.bool),
            truncated=torch.zeros(num_envs, dtype=torch.bool),
            outcome=torch.zeros(num_envs, dtype=torch.bool),
            score=torch.zeros(num_envs),
        )
