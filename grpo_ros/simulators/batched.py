"""BatchedSimulator: N environments of a task on whatever engine moves the bodies.

All per-environment state is in rows, physics included: an environment is a row of every array, a
restore is a copy of rows, exact at any moment. The engine (`physics.Physics`) is handed physics
rows and returns new ones; controller, delay buffer, randomisation, counters and latched outcome
are rows too, the same for every engine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from grpo_ros.controllers import make_controller
from grpo_ros.errors import SimulatorError, nearest
from grpo_ros.observations import ObservationAssembler
from grpo_ros.randomness import Key
from grpo_ros.simulators.arguments import check_chunk, chosen_rows, environment_ids
from grpo_ros.simulators.base import EnvIds, Observation, StepResult, Watch
from grpo_ros.simulators.physics import Physics
from grpo_ros.simulators.plan import Plan
from grpo_ros.simulators.randomiser import Randomiser
from grpo_ros.simulators.rows import CONTROLLER_KEYS, empty_rows, placed_bodies
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.base import Outcome, Task
from grpo_ros.tasks.range_scan import sense
from grpo_ros.tasks.scene_state import SceneState


class BatchedSimulator:
    """N environments of one task; see `simulators.base.Simulator` for the protocol.

    Args:
        task: what is simulated, with its robot.
        physics: what moves the bodies.

    Attributes:
        watch: called after each step of the first environment.
        draws_images: whether observations hold the images of the contract's cameras; false where
            nobody looks at them, which `render` still gives.
        rows: the state, see `Rows`.

    Raises:
        SimulatorError: an action delay is longer than the rows' queue.
    """

    device = torch.device("cpu")

    def __init__(self, task: Task, physics: Physics) -> None:
        self.task, self.physics = task, physics
        self.num_envs, self.num_substeps = physics.num_envs, physics.num_substeps
        self.capabilities = physics.capabilities
        self.watch: Watch | None = None
        self.draws_images = True
        self.contract = task.contract()
        self.robot = task.robot
        self.controller = make_controller(self.contract, self.robot)
        self.assemble = ObservationAssembler(self.contract, self.robot, has_images=True)
        self._images = {
            field.name: field.source.names[0]
            for field in self.contract.observation
            if field.source.kind == "camera"
        }
        self._bodies, self._sensors = task.bodies(), task.sensors()
        self._placed_names = tuple(body.name for body in placed_bodies(self._bodies))
        self._randomiser = Randomiser(task.randomisation, self._bodies, physics)
        num_joints = len(self.robot.joint_names)
        self.rows = empty_rows(
            physics.empty(), self._bodies, num_joints, self.contract.action_size
        )

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
        rows.physics[ids] = self.physics.start(initial)
        for i, name in enumerate(self._placed_names):
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
        check_chunk(chunk, self.num_envs, self.contract.action_size)
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
                self.watch(lambda: self._scene(torch.tensor([0])), self.contract.period_s)
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
            state = self.controller.moved_to(before, targets[active])
            action = torch.zeros(len(active), self.contract.action_size, dtype=torch.float64)
            rewards[active, 0], _ = self._advance(
                self._planned(active, action, before, state), None
            )
        return self._result(rewards, executed)

    def step_substep(self, targets: Tensor) -> None:
        """Carry out one physics step with instantaneous joint targets (N, J)."""
        active = self._active()
        if not len(active):
            return
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
        arrays = {name: array[ids] for name, array in self.rows.arrays().items()}
        return Snapshot(self.physics.engine, arrays)

    def restore(
        self, snapshot: Snapshot, rows: Sequence[int] | Tensor, env_ids: EnvIds = None
    ) -> Observation:
        """Put snapshot rows into environments; see the protocol."""
        ids, own = self._ids(env_ids), self.rows.arrays()
        chosen = chosen_rows(snapshot, rows, len(ids), self.physics.engine, own)
        for name, array in snapshot.arrays.items():
            own[name][ids] = array[chosen]
        self._randomiser.apply(self.rows, ids)
        return self._observe(ids)

    def set_scene(self, scene: SceneState, env_ids: EnvIds = None) -> None:
        """Put joints and bodies into the state that a scene gives.

        Nothing else changes: not the controllers, the counters or the outcome.

        Args:
            scene: one row per environment, of the joints and bodies to change.
            env_ids: which environments, in the order of the rows.

        Raises:
            SimulatorError: a body is unknown, or part of the world and elsewhere.
        """
        ids = self._ids(env_ids)
        motions = {body.name: body.motion for body in self._bodies}
        for name in (*scene.poses, *scene.velocities):
            if name not in motions:
                raise SimulatorError(f"body '{name}'", remedy=nearest(name, motions))
        placed = self.rows.placed[ids]
        for i, name in enumerate(self._placed_names):
            pose = scene.poses.get(name, placed[:, i]).to(torch.float64)
            if motions[name] == "static" and not torch.equal(pose, placed[:, i]):
                raise SimulatorError(f"body '{name}' is part of the world", expected="it to stay")
            placed[:, i] = pose
        self.rows.physics[ids] = self.physics.with_scene(self.rows.physics[ids], scene)
        self.rows.placed[ids] = placed

    def take_over(self, other: BatchedSimulator, poses: Mapping[str, Tensor]) -> None:
        """Go on where another simulator stood, of the same task with other bodies in its scene.

        Args:
            other: may be closed.
            poses: (N, 7) of bodies, for those that it does not have.
        """
        scene = other._scene_of(other.rows.physics, other.rows.placed, full=True)
        poses = {**poses, **scene.poses}
        mine = {body.name for body in self._bodies}
        self.rows.physics[:] = self.physics.start(dataclasses.replace(scene, poses=poses))
        theirs = other.rows.arrays()
        for name, array in self.rows.arrays().items():
            if name not in ("physics", "placed"):
                array.copy_(theirs[name])
        self._randomiser.apply(self.rows, self._ids(None))
        self.set_scene(
            dataclasses.replace(
                scene,
                poses={name: pose for name, pose in poses.items() if name in mine},
                velocities={n: v for n, v in scene.velocities.items() if n in mine},
            )
        )

    def render(self, env_ids: EnvIds = None, camera: str = "overview") -> Tensor:
        """Return images (n, H, W, 3) uint8 of the given environments."""
        ids = self._ids(env_ids)
        return self.physics.render(ids, self.rows.physics[ids], self.rows.placed[ids], camera)

    def close(self) -> None:
        """Release the engine."""
        self.physics.close()

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
        control = self.controller.interpolate(before, state, self.num_substeps)
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
        after = self._scene_of(physics, rows.placed.index_select(0, active))
        outcome = self._latch(active, after)
        terms = self.task.reward_terms(before or after, after, plan.action, outcome)
        rewards = torch.stack([terms[name] for name in self.task.reward_names], -1).float()
        return rewards, next_plan

    def _simulate(self, active: Tensor, control: Tensor) -> Callable[[], Tensor]:
        """Begin to move the active rows along control (n, substeps, J).

        Returns:
            what waits for the end, writes the rows and returns the new physics state (n, S).
        """
        physics = self.rows.physics.index_select(0, active)
        placed = self.rows.placed.index_select(0, active)
        running = self.physics.simulate(active, physics, control, placed)

        def finish() -> Tensor:
            physics = running()
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
        return self._scene_of(self.rows.physics[ids], self.rows.placed[ids])

    def _scene_of(self, physics: Tensor, placed: Tensor, full: bool = False) -> SceneState:
        scene = self.physics.full_scene(physics) if full else self.physics.scene(physics)
        poses = {name: placed[:, i] for i, name in enumerate(self._placed_names)}
        return dataclasses.replace(scene, poses={**scene.poses, **poses})

    def _observe(self, ids: Tensor) -> Observation:
        scene = self._scene(ids)
        scene = sense(scene, self._sensors, self._bodies)
        scene = self._randomiser.seen(scene, self.rows, ids)
        obs = self.assemble(scene, self._controller_state(ids), self.rows.last_action[ids])
        for field, camera in self._images.items() if self.draws_images else ():
            obs[field] = self.render(ids, camera)
        return obs

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

    def _ids(self, env_ids: EnvIds) -> Tensor:
        return environment_ids(env_ids, self.num_envs)
