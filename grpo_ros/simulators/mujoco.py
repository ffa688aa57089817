"""MuJoCo simulator: all per-environment state in rows, physics on `mujoco.rollout` threads.

An environment is a row of every array here; `MjData` is scratch space. A restore is therefore a
copy of rows, exact at any moment: `mujoco.rollout` starts every control period from the full
physics state without a warm start, and everything else that decides what happens next (controller,
delay buffer, randomisation, counters, latched outcome) is in the rows too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import mujoco
import numpy as np
import torch
from mujoco import rollout
from torch import Tensor

from grpo_ros import typed
from grpo_ros.controllers import make_controller
from grpo_ros.errors import SimulatorError
from grpo_ros.observations import ObservationAssembler
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Capabilities, EnvIds, Observation, StepResult
from grpo_ros.simulators.mujoco_model import build_model
from grpo_ros.simulators.mujoco_plan import Plan
from grpo_ros.simulators.mujoco_randomiser import Randomiser
from grpo_ros.simulators.mujoco_rows import CONTROLLER_KEYS, Layout
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.base import Outcome, Task
from grpo_ros.tasks.range_scan import sense
from grpo_ros.tasks.scene_state import SceneState

if TYPE_CHECKING:
    from grpo_ros.simulators.mujoco_renderer import MujocoRenderer


@dataclasses.dataclass(frozen=True)
class MujocoConfig:
    """Settings of the MuJoCo simulator."""

    timestep_s: float = typed.setting(0.01, "Physics time step", unit="s", minimum=1e-4)
    num_threads: int = typed.setting(
        2, "Physics threads; results do not depend on it", minimum=0, maximum=1024
    )


class MujocoSimulator:
    """N environments of one task; see `simulators.base.Simulator` for the protocol.

    Args:
        task: what is simulated, with its robot.
        num_envs: N.
        config: time step and threads.

    Attributes:
        watch: called with the first environment's scene and the period after each of its steps.

    Raises:
        SimulatorError: the control period is not a multiple of the time step, or an action delay
            is longer than this simulator's queue.
    """

    capabilities = Capabilities(
        exact_mid_episode=True, bit_equal_group=True, deterministic=True, cameras=("overview",)
    )
    device = torch.device("cpu")

    def __init__(self, task: Task, num_envs: int, config: MujocoConfig | None = None) -> None:
        self.task, self.num_envs = task, num_envs
        self.watch: Callable[[SceneState, float], None] | None = None
        self.config = config or MujocoConfig()
        self.contract = task.contract()
        self.robot = task.robot
        self.controller = make_controller(self.contract, self.robot)
        self.assemble = ObservationAssembler(self.contract, self.robot)
        self.num_substeps = self._whole_substeps()
        self._bodies, self._sensors = task.bodies(), task.sensors()
        self.model = build_model(self.robot, self._bodies, self.config.timestep_s)
        self._data = [mujoco.MjData(self.model) for _ in range(max(1, self.config.num_threads))]
        self._pool: rollout.Rollout | None = rollout.Rollout(nthread=self.config.num_threads)
        self._caller = ThreadPoolExecutor(1, "physics")
        self._layout = Layout(self.model, task)
        self._randomiser = Randomiser(task.randomisation, self.model, self._layout, num_envs)
        self._engine = f"mujoco {mujoco.__version__} {task.name} {self.robot.sha256[:12]}"
        self._renderer: MujocoRenderer | None = None
        self.rows = self._layout.empty_rows(num_envs, self.contract.action_size)

    # ---------------------------------------------------------------- protocol

    def reset(
        self, initial: SceneState, env_ids: EnvIds = None, keys: Sequence[Key] | None = None
    ) -> Observation:
        """Start episodes from `initial`; see the protocol."""
        ids = self._ids(env_ids)
        if initial.num_envs != len(ids):
            raise SimulatorError(
                f"reset got {initial.num_envs} initial states", expected=f"{len(ids)}, one each"
            )
        rows, joints = self.rows, initial.joints(self.robot.joint_names).to(torch.float64)
        physics = torch.zeros(len(ids), rows.physics.shape[1], dtype=torch.float64)
        physics[:, self._layout.qpos] = torch.from_numpy(self.model.qpos0)
        physics[:, self._layout.joint_qpos] = joints
        for mimic, driver in self._layout.mimics:
            physics[:, mimic] = physics[:, driver]
        for name, columns in self._layout.free_qpos.items():
            pose = initial.poses[name].to(torch.float64)
            physics[:, columns] = pose[:, [0, 1, 2, 6, 3, 4, 5]]
        rows.physics[ids] = physics
        for i, name in enumerate(self._layout.placed_names):
            if name in initial.poses:
                rows.placed[ids, i] = initial.poses[name].to(torch.float64)
        for name, value in self.controller.reset(joints).items():
            getattr(rows, name)[ids] = value
        for name in ("last_action", "queue", "step_count", "score"):
            getattr(rows, name)[ids] = 0
        for name in ("terminated", "truncated", "outcome"):
            getattr(rows, name)[ids] = False
        self._randomiser.draw(self.rows, ids, keys)
        return self._observe(ids)

    def step(self, chunk: Tensor) -> StepResult:
        """Carry out a chunk (N, K, A) of actions; see the protocol."""
        if chunk.ndim != 3 or chunk.shape[0] != self.num_envs:
            raise SimulatorError(
                f"chunk of shape {tuple(chunk.shape)}",
                expected=f"({self.num_envs}, K, {self.contract.action_size})",
            )
        if not bool(torch.isfinite(chunk).all()):
            raise SimulatorError("chunk holds a number that is not finite")
        num_steps = chunk.shape[1]
        actions = chunk.to(torch.float64).clamp(-1.0, 1.0)
        executed = torch.zeros(self.num_envs, num_steps, dtype=torch.bool)
        rewards = torch.zeros(self.num_envs, num_steps, len(self.task.reward_names))
        plan: Plan | None = None
        for k in range(num_steps):
            active = self._active()
            if len(active) == 0:
                break
            executed[active, k] = True
            plan = self._plan(active, actions[:, k]) if plan is None else plan.still(active)
            self.rows.last_action[active] = actions[active, k]
            following = (
                actions[:, k + 1]
                if k + 1 < num_steps and not self._randomiser.is_enabled
                else None
            )
            rewards[active, k], plan = self._advance(plan, following)
            if self.watch is not None and executed[0, k]:
                self.watch(self._scene(torch.tensor([0])), self.contract.period_s)
        return self._result(rewards, executed)

    def step_targets(self, targets: Tensor) -> StepResult:
        """Carry out one control period towards joint targets (N, J) instead of an action.

        This is what the simulated robot does with a trajectory point; the physics, interpolation
        and outcome are those of `step`.
        """
        active = self._active()
        executed = torch.zeros(self.num_envs, 1, dtype=torch.bool)
        executed[active] = True
        rewards = torch.zeros(self.num_envs, 1, len(self.task.reward_names))
        if len(active):
            before = self._controller_state(active)
            state = {**before, "target": targets[active]}
            action = torch.zeros(len(active), self.contract.action_size, dtype=torch.float64)
            rewards[active, 0], _ = self._advance(
                self._planned(active, action, before, state), None
            )
        return self._result(rewards, executed)

    def step_substep(self, targets: Tensor) -> None:
        """Carry out one physics step with instantaneous joint targets (N, J)."""
        active = self._active()
        self.rows.target[active] = targets[active]
        self._simulate(active, targets[active].unsqueeze(1))()

    def check_outcome(self) -> StepResult:
        """Count one control period and latch its outcome, after `step_substep` calls."""
        active = self._active()
        executed = torch.zeros(self.num_envs, 1, dtype=torch.bool)
        executed[active] = True
        rewards = torch.zeros(self.num_envs, 1, len(self.task.reward_names))
        if len(active):
            self._latch(active, self._scene(active))
        return self._result(rewards, executed)

    def observe(self) -> Observation:
        """Return the current observation of all environments."""
        return self._observe(torch.arange(self.num_envs))

    def scene(self) -> SceneState:
        """Return the current scene of all environments."""
        return self._scene(torch.arange(self.num_envs))

    def controller_state(self) -> dict[str, Tensor]:
        """Return a copy of the controllers' state, rows by environment."""
        return {name: getattr(self.rows, name).clone() for name in CONTROLLER_KEYS}

    def snapshot(self, env_ids: EnvIds = None) -> Snapshot:
        """Return the complete state of the given environments."""
        ids = self._ids(env_ids)
        arrays = {
            field.name: getattr(self.rows, field.name)[ids]
            for field in dataclasses.fields(self.rows)
        }
        return Snapshot(self._engine, arrays)

    def restore(
        self, snapshot: Snapshot, rows: Sequence[int] | Tensor, env_ids: EnvIds = None
    ) -> Observation:
        """Put snapshot rows into environments; see the protocol."""
        if snapshot.engine != self._engine:
            raise SimulatorError(
                f"snapshot of engine '{snapshot.engine}'", expected=f"'{self._engine}'"
            )
        ids = self._ids(env_ids)
        chosen = torch.as_tensor(rows, dtype=torch.long)
        if len(chosen) != len(ids):
            raise SimulatorError(f"{len(chosen)} rows for {len(ids)} environments")
        for name, array in snapshot.arrays.items():
            getattr(self.rows, name)[ids] = array[chosen]
        self._randomiser.apply(self.rows, ids)
        return self._observe(ids)

    def render(self, env_ids: EnvIds = None, camera: str = "overview") -> Tensor:
        """Return images (n, H, W, 3) uint8 of the given environments."""
        from grpo_ros.simulators.mujoco_renderer import MujocoRenderer

        if self._renderer is None:
            self._renderer = MujocoRenderer(self.model, width=240, height=180)
        ids = self._ids(env_ids)
        qpos = self.rows.physics[ids][:, self._layout.qpos].numpy()
        mocap = self.rows.placed[ids][:, self._layout.mocap_rows].numpy()
        return torch.from_numpy(self._renderer.render(qpos, mocap, camera))

    def close(self) -> None:
        """Stop the physics threads and free the renderer."""
        if self._pool is not None:
            self._caller.shutdown()
            self._pool.close()
            self._pool = None
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # ---------------------------------------------------------------- physics

    def _plan(
        self, active: Tensor, actions: Tensor, state: Mapping[str, Tensor] | None = None
    ) -> Plan:
        """Let the controllers decide on actions (N, A), by default from their present state."""
        action = self._randomiser.delayed(actions[active], self.rows, active)
        before = self._controller_state(active) if state is None else state
        return self._planned(active, action, before, self.controller.step(before, action))

    def _planned(
        self,
        active: Tensor,
        action: Tensor,
        before: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
    ) -> Plan:
        control = self.controller.interpolate(before["target"], state["target"], self.num_substeps)
        return Plan(active, action, state, control)

    def _advance(self, plan: Plan, following: Tensor | None) -> tuple[Tensor, Plan | None]:
        """Move the plan's environments one control period.

        While physics runs on its threads, the controllers already decide on the `following`
        actions (N, A): they go by what was commanded, not by what physics makes of it.

        Returns:
            rewards (n, R), and the plan of the following period, if there are actions for it.
        """
        active, state, rows = plan.active, plan.state, self.rows
        before = self._scene(active) if self.task.reward_names != ("outcome",) else None
        for name, value in state.items():
            getattr(rows, name).index_copy_(0, active, value)
        running = self._simulate(active, plan.control)
        next_plan = None if following is None else self._plan(active, following, state)
        physics = running()
        after = self._layout.scene(physics, rows.placed.index_select(0, active))
        outcome = self._latch(active, after)
        terms = self.task.reward_terms(before or after, after, plan.action, outcome)
        rewards = torch.stack([terms[name] for name in self.task.reward_names], -1).float()
        return rewards, next_plan

    def _simulate(self, active: Tensor, control: Tensor) -> Callable[[], Tensor]:
        """Start physics with control (n, substeps, J) from the active rows' state.

        Returns:
            what waits for the end, writes the rows and returns the new physics state (n, S).
        """
        if self._pool is None:
            raise SimulatorError("the simulator is closed")
        num_active, num_substeps = control.shape[0], control.shape[1]
        initial = self.rows.physics.index_select(0, active).numpy()
        state = np.empty((num_active, num_substeps, initial.shape[1]))
        running = self._caller.submit(
            self._pool.rollout,
            self._randomiser.models(active),
            self._data,
            initial,
            self._layout.control(control, self.rows.placed.index_select(0, active)),
            nstep=num_substeps,
            skip_checks=True,
            state=state,
            sensordata=np.empty((num_active, num_substeps, 0)),
            control_spec=self._layout.control_spec,
        )

        def finish() -> Tensor:
            running.result()
            physics = torch.from_numpy(state[:, -1])
            if not bool(torch.isfinite(physics.sum())):
                bad = active[~torch.isfinite(physics).all(dim=1)].tolist()
                raise SimulatorError(f"physics diverged in environments {bad}")
            self.rows.physics.index_copy_(0, active, physics)
            return physics

        return finish

    def _latch(self, active: Tensor, scene: SceneState) -> Outcome:
        outcome = self.task.outcome(scene)
        rows = self.rows
        count = rows.step_count.index_select(0, active) + 1
        ended = outcome.success | outcome.failure
        rows.step_count.index_copy_(0, active, count)
        rows.terminated.index_copy_(0, active, ended)
        rows.truncated.index_copy_(0, active, ~ended & (count >= self.task.horizon))
        rows.outcome.index_copy_(0, active, outcome.success)
        rows.score.index_copy_(0, active, outcome.score.float())
        return outcome

    def _active(self) -> Tensor:
        return torch.nonzero(~(self.rows.terminated | self.rows.truncated)).squeeze(1)

    # ---------------------------------------------------------------- views

    def _scene(self, ids: Tensor) -> SceneState:
        physics, placed = self.rows.physics[ids], self.rows.placed[ids]
        return self._layout.scene(physics, placed)

    def _observe(self, ids: Tensor) -> Observation:
        scene = self._scene(ids)
        scene = sense(scene, self._sensors, self._bodies)
        scene = self._randomiser.seen(scene, self.rows, ids)
        return self.assemble(scene, self._controller_state(ids), self.rows.last_action[ids])

    def _controller_state(self, ids: Tensor) -> dict[str, Tensor]:
        return {name: getattr(self.rows, name).index_select(0, ids) for name in CONTROLLER_KEYS}

    def _result(self, rewards: Tensor, executed: Tensor) -> StepResult:
        obs = self.observe()
        rows = self.rows
        return StepResult(
            obs,
            obs,
            rewards,
            rows.terminated.clone(),
            rows.truncated.clone(),
            executed,
            rows.outcome.clone(),
            rows.score.clone(),
        )

    def _whole_substeps(self) -> int:
        ratio = self.contract.period_s / self.config.timestep_s
        if abs(ratio - round(ratio)) > 1e-6 or round(ratio) < 1:
            raise SimulatorError(
                f"control period {self.contract.period_s} s at a time step of "
                f"{self.config.timestep_s} s",
                expected="a whole number of steps per period",
            )
        return round(ratio)

    def _ids(self, env_ids: EnvIds) -> Tensor:
        if env_ids is None:
            return torch.arange(self.num_envs)
        ids = torch.as_tensor(env_ids, dtype=torch.long)
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= self.num_envs):
            raise SimulatorError(
                f"environment ids {ids.tolist()}", expected=f"0 to {self.num_envs - 1}"
            )
        return ids
