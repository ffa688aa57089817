"""Pictures of scenes of whatever engine, drawn by MuJoCo from the task's own description."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.mujoco.layout import Layout
from grpo_ros.simulators.mujoco.model import build_model
from grpo_ros.simulators.mujoco.renderer import MujocoRenderer
from grpo_ros.simulators.rows import placed_bodies
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.camera import OVERVIEW
from grpo_ros.tasks.environment import EnvironmentTask
from grpo_ros.tasks.scene_state import SceneState


class SceneRenderer:
    """Draws a task's robot and bodies where a scene says they are.

    Args:
        task: whose robot and bodies.
        width, height: of pictures, pixels.

    Raises:
        SimulatorError: the task has no robot and bodies of its own, or nothing renders here.
    """

    def __init__(self, task: Task, width: int = 240, height: int = 180) -> None:
        if isinstance(task, EnvironmentTask):
            raise SimulatorError(f"'{task.name}' describes no scene that could be drawn")
        bodies = task.bodies()
        self._model = build_model(task.robot, bodies, 0.01, task.cameras())
        self._layout = Layout(self._model, task.robot, bodies)
        self._placed = [body.name for body in placed_bodies(bodies) if body.motion == "kinematic"]
        self._renderer = MujocoRenderer(self._model, width, height)

    def render(self, scene: SceneState, camera: str = OVERVIEW) -> Tensor:
        """Return pictures (n, H, W, 3) uint8 of n scenes, by the overview or a task's camera."""
        qpos = self._layout.start(scene, self._model)[:, self._layout.qpos].numpy()
        poses = [scene.poses[name].double() for name in self._placed]
        mocap = torch.stack(poses, dim=1).numpy() if poses else None
        return torch.from_numpy(self._renderer.render(qpos, mocap, camera))

    def close(self) -> None:
        """Free the renderer; idempotent."""
        self._renderer.close()
