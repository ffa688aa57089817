"""MuJoCo physics: `mujoco.rollout` threads.

`MjData` is scratch space: `mujoco.rollout` starts every control period from the full physics state
of a row, without a warm start.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import mujoco
import numpy as np
import torch
from mujoco import rollout
from torch import Tensor

from grpo_ros import typed
from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.base import Capabilities
from grpo_ros.simulators.batched import BatchedSimulator
from grpo_ros.simulators.mujoco.layout import Layout
from grpo_ros.simulators.mujoco.model import build_model
from grpo_ros.simulators.physics import short_hash, whole_substeps
from grpo_ros.simulators.rows import FRICTION, GAIN, MASS
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.camera import OVERVIEW, Camera
from grpo_ros.tasks.scene_state import SceneState

if TYPE_CHECKING:
    from grpo_ros.simulators.mujoco.observed_images import ObservedImages
    from grpo_ros.simulators.mujoco.renderer import MujocoRenderer

TIME = 0
"""Column of a physics row: mjSTATE_TIME comes first."""
LATE_S = 1e6
"""When physics is run: MuJoCo starts a state anew that diverged, at 0, and only that tells."""
FILM_SIZE = (240, 180)
"""Of images of a camera that is not observed, pixels."""


@dataclasses.dataclass(frozen=True)
class MujocoConfig:
    """Settings of the MuJoCo simulator."""

    timestep_s: float = typed.setting(0.01, "Physics time step", unit="s", minimum=1e-4)
    num_threads: int = typed.setting(
        2,
        "Threads of physics and of observed images; results do not depend on it",
        minimum=0,
        maximum=1024,
    )


class MujocoPhysics:
    """A robot and a task's bodies in MuJoCo; see `Physics` for the protocol.

    Args:
        task: whose robot and bodies.
        num_envs: N.
        config: time step and threads.

    Raises:
        SimulatorError: the control period is not a multiple of the time step, or MuJoCo cannot
            build the task's bodies.
        RobotError: MuJoCo cannot build the robot.
    """

    def __init__(self, task: Task, num_envs: int, config: MujocoConfig) -> None:
        self.num_envs = num_envs
        names = dict.fromkeys((OVERVIEW, *(camera.name for camera in task.cameras())))
        self.capabilities = Capabilities(True, True, True, tuple(names))
        self.num_substeps = whole_substeps(task.contract().period_s, config.timestep_s)
        self._cameras = {camera.name: camera for camera in task.cameras()}
        self.model = build_model(
            task.robot, task.bodies(), config.timestep_s, tuple(self._cameras.values())
        )
        self._data = [mujoco.MjData(self.model) for _ in range(max(1, config.num_threads))]
        self._pool: rollout.Rollout | None = rollout.Rollout(nthread=config.num_threads)
        self._caller = ThreadPoolExecutor(1, "physics")
        self._layout = Layout(self.model, task.robot, task.bodies())
        self.state_size = self._layout.state_size
        decisive = short_hash(task.bodies(), config.timestep_s, task.randomisation.enabled)
        named = f"mujoco {mujoco.__version__} {task.name} {task.robot.sha256[:12]}"
        self.engine = f"{named} {decisive}"
        self._num_threads = config.num_threads
        self._observed: dict[tuple[int, int], ObservedImages] = {}
        self._film: MujocoRenderer | None = None
        self._own_models: list[mujoco.MjModel] = []

    def empty(self) -> Tensor:
        """Return physics rows (N, S) float64, mjSTATE_FULLPHYSICS."""
        return torch.zeros(self.num_envs, self.state_size, dtype=torch.float64)

    def start(self, initial: SceneState) -> Tensor:
        """Return physics rows (n, S) of scenes at rest."""
        return self._layout.start(initial, self.model)

    def scene(self, physics: Tensor) -> SceneState:
        """Return joints and dynamic bodies of physics rows (n, S)."""
        return self._layout.scene(physics)

    def full_scene(self, physics: Tensor) -> SceneState:
        """Return `scene` with the joints that mimic another."""
        return self._layout.full_scene(physics)

    def with_scene(self, physics: Tensor, scene: SceneState) -> Tensor:
        """Return physics rows (n, S) with the state that a scene gives; see the protocol."""
        return self._layout.with_scene(physics, scene)

    def simulate(
        self, ids: Tensor, physics: Tensor, control: Tensor, placed: Tensor
    ) -> Callable[[], Tensor]:
        """Begin to move environments on the threads; see the protocol."""
        if self._pool is None:
            raise SimulatorError("the simulator is closed")
        num, num_substeps = control.shape[:2]
        state = np.empty((num, num_substeps, self.state_size))
        start = physics.numpy().copy()
        start[:, TIME] = LATE_S
        running = self._caller.submit(
            self._pool.rollout,
            [self._model(i) for i in ids.tolist()],
            self._data,
            start,
            self._layout.control(control, placed),
            nstep=num_substeps,
            skip_checks=True,
            state=state,
            sensordata=np.empty((num, num_substeps, 0)),
            control_spec=self._layout.control_spec,
        )

        def finish() -> Tensor:
            running.result()
            moved, timestep = state[:, -1], self.model.opt.timestep
            has_stopped = moved[:, TIME] < LATE_S + (num_substeps - 0.5) * timestep
            moved[:, TIME] = physics.numpy()[:, TIME]
            for _ in range(num_substeps):
                moved[:, TIME] += timestep
            moved[has_stopped] = np.nan
            return torch.from_numpy(moved)

        return finish

    def set_draws(self, ids: Tensor, draws: Tensor) -> None:
        """Write factors (n, 5) into models of the environments' own."""
        if not self._own_models:
            self._own_models = [copy.copy(self.model) for _ in range(self.num_envs)]
        nominal, free = self.model, self._layout.free_bodies
        data = mujoco.MjData(nominal)
        for i, draw in zip(ids.tolist(), draws.tolist(), strict=True):
            model = self._own_models[i]
            model.body_mass[free] = nominal.body_mass[free] * draw[MASS]
            model.body_inertia[free] = nominal.body_inertia[free] * draw[MASS]
            model.geom_friction[:, 0] = nominal.geom_friction[:, 0] * draw[FRICTION]
            model.actuator_gainprm[:] = nominal.actuator_gainprm * draw[GAIN]
            model.actuator_biasprm[:] = nominal.actuator_biasprm * draw[GAIN]
            mujoco.mj_setConst(model, data)  # among others, how hard a contact is

    def render(self, ids: Tensor, physics: Tensor, placed: Tensor, camera: str) -> Tensor:
        """Return images (n, H, W, 3) uint8 of physics rows.

        Those of observed cameras are drawn for speed, others as films are.
        """
        qpos = physics[:, self._layout.qpos].numpy()
        mocap = placed[:, self._layout.mocap_rows].numpy()
        if observed := self._cameras.get(camera):
            return torch.from_numpy(self._images(observed).render(qpos, mocap, camera))
        if self._film is None:
            from grpo_ros.simulators.mujoco.renderer import MujocoRenderer

            self._film = MujocoRenderer(self.model, *FILM_SIZE)
        return torch.from_numpy(self._film.render(qpos, mocap, camera))

    def _images(self, camera: Camera) -> ObservedImages:
        """Return what draws images of a camera's size."""
        from grpo_ros.simulators.mujoco.observed_images import ObservedImages

        size = camera.width, camera.height
        if size not in self._observed:
            self._observed[size] = ObservedImages(self.model, *size, self._num_threads)
        return self._observed[size]

    def close(self) -> None:
        """Stop the threads and free the renderers."""
        if self._pool is not None:
            self._caller.shutdown()
            self._pool.close()
            self._pool = None
        while self._observed:
            self._observed.popitem()[1].close()
        if self._film is not None:
            self._film.close()
            self._film = None

    def _model(self, env: int) -> mujoco.MjModel:
        return self._own_models[env] if self._own_models else self.model


class MujocoSimulator(BatchedSimulator):
    """N environments of one task in MuJoCo.

    Args:
        task: what is simulated, with its robot.
        num_envs: N.
        config: time step and threads.

    Raises:
        SimulatorError: the control period is not a multiple of the time step, or an action delay
            is longer than the rows' queue.
    """

    physics: MujocoPhysics

    def __init__(self, task: Task, num_envs: int, config: MujocoConfig | None = None) -> None:
        super().__init__(task, MujocoPhysics(task, num_envs, config or MujocoConfig()))

    @property
    def model(self) -> mujoco.MjModel:
        """The nominal model."""
        return self.physics.model
