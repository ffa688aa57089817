"""Isaac Lab physics: one scene of N environments, driven row by row.

Isaac Lab keeps its state in the engine. Here a row of numbers holds all of it that decides the
next step: joints, bodies, and the solver's warm start. Rows that are not what the engine holds are
written before a step; finished environments go on moving in the engine, but nobody reads them.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grpo_ros.errors import RobotError, SimulatorError, nearest
from grpo_ros.simulators.base import Capabilities
from grpo_ros.simulators.isaaclab import app
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.isaaclab.names import ROBOT, body_asset, camera_asset
from grpo_ros.simulators.isaaclab.newton import MIN_WORLDS, NewtonSolver
from grpo_ros.simulators.isaaclab.parameters import Parameters
from grpo_ros.simulators.physics import joint_sources, short_hash, whole_substeps
from grpo_ros.simulators.rows import placed_bodies
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState

BODY_SIZE = 13
"""Pose (x y z, quaternion x y z w), linear and angular velocity."""


class IsaacLabPhysics:
    """A robot and a task's bodies in Isaac Lab; see `Physics` for the protocol.

    Args:
        task: whose robot and bodies.
        num_envs: N.
        config: backend, device, time step.

    Raises:
        MissingExtraError: Isaac Lab, or what the backend needs, is not installed.
        SimulatorError: the control period is not a multiple of the time step, or this process
            already holds an Isaac Lab simulation.
    """

    def __init__(self, task: Task, num_envs: int, config: IsaacLabConfig) -> None:
        self.num_envs = num_envs
        self.num_substeps = whole_substeps(task.contract().period_s, config.timestep_s)
        self._robot, bodies = task.robot, task.bodies()
        self._dynamic = [body.name for body in bodies if body.motion == "dynamic"]
        self._placed = [
            (i, body.name)
            for i, body in enumerate(placed_bodies(bodies))
            if body.motion == "kinematic" and (task.cameras() or not body.visual_only)
        ]
        self._timestep_s, self._device = config.timestep_s, torch.device(config.device)
        num_worlds = max(num_envs, MIN_WORLDS)
        with app.launched(config, self) as physics:
            self._build(task, physics, num_worlds, config)
            self._solver = NewtonSolver(self._sim, num_worlds)
            self._solver.compute_boxes_as_primitives()
            self._lay_out()
        self._parameters: Parameters | None = None
        self._held = torch.full((num_worlds, self.state_size), torch.nan)
        self._held_placed = torch.full((num_worlds, len(self._placed), 7), torch.nan)
        version = importlib.metadata.version("isaaclab")
        settings = dataclasses.replace(config, device="")
        decisive = short_hash(bodies, settings, task.randomisation.enabled)
        named = f"isaaclab {version} {config.backend} {task.name} {task.robot.sha256[:12]}"
        self.engine = f"{named} {decisive}"
        self.capabilities = Capabilities(
            exact_mid_episode=config.is_proven,
            bit_equal_group=config.is_proven,
            deterministic=config.is_proven,
            cameras=tuple(camera.name for camera in task.cameras()),
        )

    def _build(self, task: Task, physics: Any, num_worlds: int, config: IsaacLabConfig) -> None:
        import isaaclab.sim as sim_utils
        from isaaclab.scene import InteractiveScene

        from grpo_ros.simulators.isaaclab.scene import scene_config

        self._sim: Any = sim_utils.SimulationContext(
            sim_utils.SimulationCfg(dt=config.timestep_s, device=config.device, physics=physics)
        )
        self._scene: Any = InteractiveScene(
            scene_config(task.robot, task.bodies(), task.cameras(), num_worlds, config)
        )
        self._sim.reset()
        self._arm: Any = self._scene[ROBOT]

    def _lay_out(self) -> None:
        """Decide which columns of a row hold what."""
        names = list(self._arm.joint_names)
        for name in self._robot.joint_names:
            if name not in names:
                raise RobotError(
                    f"the asset of '{self._robot.name}' has no joint '{name}'",
                    remedy=nearest(name, names),
                )
        self._all_joints = tuple(names)
        self._joints = torch.tensor([names.index(name) for name in self._robot.joint_names])
        gripper, self._mimics = self._robot.gripper, []
        if gripper is not None:
            driver = names.index(gripper.joint)
            self._mimics = [(names.index(name), driver) for name in gripper.mimic_joints]
        mimics = torch.tensor([mimic for mimic, _ in self._mimics], dtype=torch.long)
        self._driven = torch.cat([self._joints, mimics])
        self._num_joints = num = len(names)
        at = 2 * num
        self._body_columns: dict[str, slice] = {}
        for name in self._dynamic:
            self._body_columns[name] = slice(at, at + BODY_SIZE)
            at += BODY_SIZE
        self._warm_columns = slice(at, at + self._solver.warm_size)
        self.state_size = at + self._solver.warm_size

    # ---------------------------------------------------------------- rows

    def empty(self) -> Tensor:
        """Return physics rows (N, S) float32."""
        return torch.zeros(self.num_envs, self.state_size)

    def start(self, initial: SceneState) -> Tensor:
        """Return physics rows (n, S) of scenes at rest."""
        physics = torch.zeros(initial.num_envs, self.state_size)
        physics[:, self._joints] = initial.joints(self._robot.joint_names).float()
        for mimic, driver in self._mimics:
            physics[:, mimic] = physics[:, driver]
        for name, columns in self._body_columns.items():
            physics[:, columns.start : columns.start + 7] = initial.poses[name].float()
        return physics

    def scene(self, physics: Tensor) -> SceneState:
        """Return joints and dynamic bodies of physics rows (n, S)."""
        physics = physics.double()
        bodies = {name: physics[:, columns] for name, columns in self._body_columns.items()}
        return SceneState(
            self._robot.joint_names,
            physics[:, self._joints],
            physics[:, self._num_joints + self._joints],
            {name: body[:, :7] for name, body in bodies.items()},
            {name: body[:, 7:] for name, body in bodies.items()},
        )

    def full_scene(self, physics: Tensor) -> SceneState:
        """Return `scene` with the joints that mimic another."""
        num, rows = self._num_joints, physics.double()
        return dataclasses.replace(
            self.scene(physics),
            joint_names=self._all_joints,
            joint_position=rows[:, :num],
            joint_velocity=rows[:, num : 2 * num],
        )

    def with_scene(self, physics: Tensor, scene: SceneState) -> Tensor:
        """Return physics rows (n, S) with the state that a scene gives; see the protocol."""
        before, physics = physics, physics.clone()
        for joint, source in joint_sources(scene, self._robot.gripper).items():
            column = self._all_joints.index(joint)
            physics[:, column] = scene.joint_position[:, source].float()
            physics[:, self._num_joints + column] = scene.joint_velocity[:, source].float()
        for name, columns in self._body_columns.items():
            middle = columns.start + 7
            if name in scene.poses:
                physics[:, columns.start : middle] = scene.poses[name].float()
            if name in scene.velocities:
                physics[:, middle : columns.stop] = scene.velocities[name].float()
        is_other = (physics != before).any(1, keepdim=True)
        warm = physics[:, self._warm_columns]  # of another state: it would mislead the solver
        physics[:, self._warm_columns] = torch.where(is_other, torch.zeros_like(warm), warm)
        return physics

    def simulate(
        self, ids: Tensor, physics: Tensor, control: Tensor, placed: Tensor
    ) -> Callable[[], Tensor]:
        """Move environments; the engine steps all of them, `ids` are read; see the protocol."""
        if self._sim is None:
            raise SimulatorError("the simulator is closed")
        self._write(ids, physics, placed)
        joints = self._on_device(self._driven)
        followers = control[..., -1:].expand(-1, -1, len(self._mimics))
        targets = torch.cat([control, followers], dim=-1).float().to(self._device)
        on_device = self._on_device(ids)
        for substep in range(control.shape[1]):
            self._arm.actuators.target_command.set_position_index(
                value=targets[:, substep].contiguous(), joint_ids=joints, env_ids=on_device
            )
            self._scene.write_data_to_sim()
            self._sim.step(render=False)
        self._scene.update(self._timestep_s * control.shape[1])
        self._held = self._read()
        moved = self._held.index_select(0, ids)
        return lambda: moved

    def _write(self, ids: Tensor, physics: Tensor, placed: Tensor) -> None:
        """Put rows into the engine, where it does not hold them already."""
        moved = placed[:, [i for i, _ in self._placed]].float()
        is_other = (physics != self._held[ids]).any(1)
        is_other |= (moved != self._held_placed[ids]).flatten(1).any(1)
        if not bool(is_other.any()):
            return
        ids, physics, moved = ids[is_other], physics[is_other], moved[is_other]
        self._held[ids], self._held_placed[ids] = physics, moved
        physics = physics.to(self._device)
        on_device, num = self._on_device(ids), self._num_joints
        self._arm.write_joint_position_to_sim_index(position=physics[:, :num], env_ids=on_device)
        self._arm.write_joint_velocity_to_sim_index(
            velocity=physics[:, num : 2 * num], env_ids=on_device
        )
        for name, columns in self._body_columns.items():
            body, asset = physics[:, columns], self._scene[body_asset(name)]
            asset.write_root_link_pose_to_sim_index(root_pose=body[:, :7], env_ids=on_device)
            asset.write_root_com_velocity_to_sim_index(
                root_velocity=body[:, 7:], env_ids=on_device
            )
        for i, (_, name) in enumerate(self._placed):
            pose = moved[:, i].to(self._device)
            asset = self._scene[body_asset(name)]
            asset.write_root_link_pose_to_sim_index(root_pose=pose, env_ids=on_device)
        self._scene.write_data_to_sim()
        self._sim.forward()  # clears the warm start of what was written
        self._solver.write_warm_start(on_device, physics[:, self._warm_columns])

    def _read(self) -> Tensor:
        """Return what the engine holds, as rows of all worlds on the CPU."""
        data = self._arm.data
        parts = [data.joint_pos.torch, data.joint_vel.torch]
        for name in self._dynamic:
            body = self._scene[body_asset(name)].data
            parts += [body.root_link_pose_w.torch, body.root_com_vel_w.torch]
        parts.append(self._solver.read_warm_start())
        return torch.cat(parts, dim=1).cpu()

    def _on_device(self, ids: Tensor) -> Tensor:
        return ids.to(self._device, torch.int32)

    # ---------------------------------------------------------------- protocol

    def set_draws(self, ids: Tensor, draws: Tensor) -> None:
        """Scale masses, friction and gains of environments by factors (n, 5).

        Raises:
            SimulatorError: the backend is not newton.
        """
        if self._solver.warm_size == 0:
            raise SimulatorError(
                "task.randomisation is on, which isaaclab offers on the newton backend only",
                remedy="randomise:=false, or backend:=newton",
            )
        if self._parameters is None:
            objects = [self._scene[body_asset(name)] for name in self._dynamic]
            self._parameters = Parameters(self._sim, self._arm, self._driven, objects)
        self._parameters.scale(ids, draws)

    def render(self, ids: Tensor, physics: Tensor, placed: Tensor, camera: str) -> Tensor:
        """Return images (n, H, W, 3) uint8 of physics rows; the renderer draws all environments.

        Raises:
            SimulatorError: no camera of that name is observed.
        """
        if camera not in self.capabilities.cameras:
            raise SimulatorError(
                f"the isaaclab simulator has no camera '{camera}'",
                expected=", ".join(self.capabilities.cameras) or "none: task.cameras is empty",
            )
        self._write(ids, physics, placed)
        sensor = self._scene[camera_asset(camera)]
        sensor.update(0.0, force_recompute=True)
        image: Tensor = sensor.data.output["rgb"].torch
        return image[ids.to(image.device), ..., :3].cpu().clone()

    def close(self) -> None:
        """Clear Isaac Lab's simulation context."""
        if self._sim is not None:
            self._sim = self._scene = self._arm = None
            app.release(self)
