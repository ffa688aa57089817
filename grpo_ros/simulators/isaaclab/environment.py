"""IsaacLabEnvironment: a user's ManagerBasedRLEnv behind the Simulator protocol, groups included.

The environment's managers compute observations, rewards and terminations as they always do. What
is added: no automatic reset, complete snapshots, initial states drawn per key, and an outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.metadata
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_ros.contract import ActionField, Contract, ObservationField, Source
from grpo_ros.errors import ConfigurationError, SimulatorError, nearest
from grpo_ros.randomness import Key, generator
from grpo_ros.simulators.arguments import check_chunk, chosen_rows, environment_ids
from grpo_ros.simulators.base import Capabilities, EnvIds, Observation, StepResult, Watch
from grpo_ros.simulators.isaaclab import app
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.isaaclab.environment_config import environment_config
from grpo_ros.simulators.isaaclab.environment_state import EnvironmentState
from grpo_ros.simulators.isaaclab.newton import MIN_WORLDS, NewtonSolver
from grpo_ros.simulators.physics import short_hash
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.environment import KEY, EnvironmentTask
from grpo_ros.tasks.scene_state import SceneState

STATE, OBSERVED, EPISODE = "env/", "obs/", "episode/"

log = logging.getLogger(__name__)


class IsaacLabEnvironment:
    """N environments of one registered or imported configuration; see `Simulator`.

    Args:
        task: names the configuration and what counts as success; is given its contract.
        num_envs: N.
        config: backend and device.

    Raises:
        ConfigurationError: no such configuration, outcome or observation group.
        RobotError: an asset of it would be fetched.
        SimulatorError: this process already holds an Isaac Lab simulation.
    """

    device = torch.device("cpu")

    def __init__(
        self, task: EnvironmentTask, num_envs: int, config: IsaacLabConfig | None = None
    ) -> None:
        config = config or IsaacLabConfig()
        self.task: Task = task
        self.num_envs, self._settings = num_envs, task.config
        self.watch: Watch | None = None
        app.require(config)
        self._num_worlds = max(num_envs, MIN_WORLDS)
        found, self.changed = environment_config(
            task.specification, self._num_worlds, task.config, config
        )
        with app.launched(config, self, found) as physics:
            found.sim.physics = physics
            with contextlib.redirect_stdout(io.StringIO()):  # tables of every manager
                self._env: Any = _environment_class()(found)
            solver = NewtonSolver(self._env.sim, self._num_worlds)
            self._state = EnvironmentState(self._env, solver)
            self._outcome = self._outcome_of(task.config.outcome)
            self._score = _function(task.config.score) if task.config.score else None
            num_actions = self._env.action_manager.total_action_dim
            with self._env.automatic_resets():
                self._env.reset()
                self._env.step(torch.zeros(self._num_worlds, num_actions))
                self._env.reset()  # what appears with the first step, as delays do, is there now
            self.contract = self._make_contract()
            self._rows = self._read()
        if self.changed:
            log.warning("left out of '%s': %s", task.specification, ", ".join(self.changed))
        task.bind(self.contract, ("outcome", *self._env.reward_manager.active_terms))
        version = importlib.metadata.version("isaaclab")
        settings = dataclasses.replace(config, device="")
        decisive = short_hash(settings, self._env.physics_dt, self._env.step_dt)
        self._engine = f"isaaclab {version} {config.backend} {task.name} {decisive}"
        self.capabilities = Capabilities(config.is_proven, config.is_proven, config.is_proven)
        self._episode = {
            "step_count": torch.zeros(num_envs, dtype=torch.long),
            "terminated": torch.ones(num_envs, dtype=torch.bool),
            "truncated": torch.zeros(num_envs, dtype=torch.bool),
            "outcome": torch.zeros(num_envs, dtype=torch.bool),
            "score": torch.zeros(num_envs),
        }

    # ---------------------------------------------------------------- protocol

    def reset(
        self, initial: SceneState, env_ids: EnvIds = None, keys: Sequence[Key] | None = None
    ) -> Observation:
        """Start episodes; the reset events of each environment draw from its own key."""
        ids = self._ids(env_ids)
        drawn = initial.readings[KEY]
        if len(drawn) != len(ids):
            raise SimulatorError(
                f"reset got {len(drawn)} initial states", expected=f"{len(ids)}, one each"
            )
        with self._env.automatic_resets():
            for env, key in zip(ids.tolist(), drawn.tolist(), strict=True):
                seed = int(generator("environment/reset", Key(*key)).integers(2**31))
                one = torch.tensor([env])
                self._env.reset(one.to(self._env.device, torch.int32), seed=seed)
                self._keep(one)
        for value in self._episode.values():
            value[ids] = torch.zeros(1, dtype=value.dtype)
        # A reset adds to the histories of all environments: put back what they were.
        everyone = torch.arange(self.num_envs)
        self._state.write(everyone, self._state_of(self._rows, everyone))
        return self._observed(ids)

    def step(self, chunk: Tensor) -> StepResult:
        """Carry out a chunk (N, K, A) of actions; see the protocol."""
        check_chunk(chunk, self.num_envs, self.contract.action_size)
        num_steps = chunk.shape[1]
        executed = torch.zeros(self.num_envs, num_steps, dtype=torch.bool)
        rewards = torch.zeros(self.num_envs, num_steps, len(self.task.reward_names))
        scale = self._settings.action_scale
        for k in range(num_steps):
            active = self._active()
            if len(active) == 0:
                break
            executed[active, k] = True
            action = torch.zeros(self._num_worlds, chunk.shape[2])
            action[: self.num_envs] = scale * chunk[:, k].float().clamp(-1.0, 1.0)
            self._env.step(action)
            rewards[active, k] = self._latch(active)
            self._keep(active)
            if self.watch is not None and executed[0, k]:
                self.watch(lambda: self.scene().rows([0]), self.contract.period_s)
        return self._result(rewards, executed)

    def observe(self) -> Observation:
        """Return the current observation of all environments."""
        return self._observed(torch.arange(self.num_envs))

    def scene(self) -> SceneState:
        """Return the joints of the first articulation; environments have no named bodies."""
        articulations = self._env.scene.articulations
        if not articulations:
            nothing = torch.zeros(self.num_envs, 0, dtype=torch.float64)
            return SceneState((), nothing, nothing, {})
        name, asset = next(iter(articulations.items()))
        part = f"{STATE}scene/articulation/{name}"
        return SceneState(
            tuple(asset.joint_names),
            self._rows[f"{part}/joint_position"].double(),
            self._rows[f"{part}/joint_velocity"].double(),
            {},
        )

    def controller_state(self) -> Mapping[str, Tensor]:
        """Return nothing: an environment's own action terms command it."""
        return {}

    def snapshot(self, env_ids: EnvIds = None) -> Snapshot:
        """Return the complete state of the given environments."""
        ids = self._ids(env_ids)
        return Snapshot(self._engine, {name: value[ids] for name, value in self._own().items()})

    def restore(
        self, snapshot: Snapshot, rows: Sequence[int] | Tensor, env_ids: EnvIds = None
    ) -> Observation:
        """Put snapshot rows into environments; see the protocol."""
        ids, own = self._ids(env_ids), self._own()
        chosen = chosen_rows(snapshot, rows, len(ids), self._engine, own)
        for name, array in snapshot.arrays.items():
            own[name][ids] = array[chosen]
        self._state.write(ids, self._state_of(snapshot.arrays, chosen))
        return self._observed(ids)

    def render(self, env_ids: EnvIds = None, camera: str = "overview") -> Tensor:
        """Refuse: an environment's cameras are among its observations."""
        raise SimulatorError(
            f"'{self.task.name}' has no camera '{camera}' of ours", remedy="film:=false"
        )

    def close(self) -> None:
        """Close the environment and clear Isaac Lab's simulation context."""
        if self._env is not None:
            self._env.close()
            self._env = None
            app.release(self)

    # ---------------------------------------------------------------- inside

    def _latch(self, active: Tensor) -> Tensor:
        """Count a step of active environments; return their rewards (n, 1 + R)."""
        env, episode = self._env, self._episode
        outcome = self._outcome().cpu().bool()[active]
        terminated = env.reset_terminated.cpu()[active]
        truncated = env.reset_time_outs.cpu()[active] & ~terminated
        if self._settings.success_ends:
            terminated = terminated | outcome
            truncated = truncated & ~outcome
        episode["step_count"][active] += 1
        truncated |= ~terminated & (episode["step_count"][active] >= self.task.horizon)
        score = outcome.float() if self._score is None else self._score(env).cpu()[active].float()
        episode["terminated"][active], episode["truncated"][active] = terminated, truncated
        episode["outcome"][active] = outcome
        episode["score"][active] = torch.where(outcome, 1.0, score.clamp(0.0, 1.0))
        terms = env.reward_manager._step_reward.cpu()[active] * env.step_dt
        return torch.cat([outcome.float().unsqueeze(1), terms], dim=1)

    def _read(self) -> dict[str, Tensor]:
        rows = {STATE + name: value for name, value in self._state.read().items()}
        rows.update((OBSERVED + name, value) for name, value in self._fields().items())
        return {name: value[: self.num_envs] for name, value in rows.items()}

    def _own(self) -> dict[str, Tensor]:
        """Return the arrays of a snapshot themselves."""
        episode = {EPISODE + name: value for name, value in self._episode.items()}
        return {**self._rows, **episode}

    def _keep(self, ids: Tensor) -> None:
        """Take over the rows of environments; the others are finished, and stay as they were.

        Raises:
            SimulatorError: something is remembered now that was not at the beginning.
        """
        found = self._read()
        if differing := sorted(set(found) ^ set(self._rows)):
            raise SimulatorError(
                f"'{self.task.name}' began or ceased to remember {', '.join(differing)}",
                expected="the same arrays from an environment's first step on",
            )
        for name, value in found.items():
            self._rows[name][ids] = value[ids]

    def _fields(self) -> dict[str, Tensor]:
        """Return the observation that the environment holds, by field."""
        fields: dict[str, Tensor] = {}
        for group in self._settings.observation_groups:
            value = self._env.obs_buf[group]
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            for term, part in parts:
                name = f"{group}_{term}" if term else group
                is_image = part.dtype == torch.uint8
                fields[name] = (part if is_image else part.float()).cpu().clone()
        return fields

    def _state_of(self, arrays: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """Return those rows of arrays that are the environment's own state."""
        return {
            name.removeprefix(STATE): array[rows]
            for name, array in arrays.items()
            if name.startswith(STATE)
        }

    def _observed(self, ids: Tensor) -> dict[str, Tensor]:
        return {
            name.removeprefix(OBSERVED): value[ids]
            for name, value in self._rows.items()
            if name.startswith(OBSERVED)
        }

    def _result(self, rewards: Tensor, executed: Tensor) -> StepResult:
        obs, episode = self.observe(), self._episode
        ends = (episode["terminated"].clone(), episode["truncated"].clone())
        outcome, score = episode["outcome"].clone(), episode["score"].clone()
        return StepResult(obs, obs, rewards, *ends, executed, outcome, score)

    def _active(self) -> Tensor:
        finished = self._episode["terminated"] | self._episode["truncated"]
        return torch.nonzero(~finished).squeeze(1)

    def _make_contract(self) -> Contract:
        env, config = self._env, self._settings
        for group in config.observation_groups:
            if group not in env.obs_buf:
                raise ConfigurationError(
                    f"'{self.task.name}' has no observation group '{group}'",
                    remedy=nearest(group, env.obs_buf),
                )
        observation = tuple(
            ObservationField(
                name,
                tuple(value.shape[1:]),
                Source("environment", (name,)),
                "uint8" if value.dtype == torch.uint8 else "float32",
            )
            for name, value in self._fields().items()
        )
        manager = env.action_manager
        sizes = zip(manager.active_terms, manager.action_term_dim, strict=True)
        action = tuple(
            ActionField(
                name,
                "environment",
                tuple(f"{name}_{i}" for i in range(size)),
                (config.action_scale,) * size,
            )
            for name, size in sizes
        )
        return Contract(
            task=self.task.name,
            instruction=self.task.instruction,
            embodiment=", ".join(env.scene.articulations) or "none",
            robot_sha256="",
            observation=observation,
            action=action,
            control_rate_hz=1.0 / env.step_dt,
            chunk_size=config.chunk_size,
            num_executed=config.chunk_size,
            horizon=math.ceil(env.max_episode_length_s / env.step_dt),
        )

    def _outcome_of(self, name: str) -> Callable[[], Tensor]:
        """Return what gives the outcome (N,) of the last step."""
        manager = self._env.termination_manager
        if name in manager.active_terms:
            return lambda: manager.get_term(name)
        if ":" in name:
            function = _function(name)
            return lambda: function(self._env)
        raise ConfigurationError(
            f"task.outcome = '{name}' is no termination term of '{self.task.name}'",
            expected="one of its terms, or module:function",
            remedy=nearest(name, manager.active_terms),
        )

    def _ids(self, env_ids: EnvIds) -> Tensor:
        return environment_ids(env_ids, self.num_envs)


def _environment_class() -> Any:
    """Return ManagerBasedRLEnv that resets only where it is asked to."""
    from isaaclab.envs import ManagerBasedRLEnv

    class GroupEnvironment(ManagerBasedRLEnv):  # type: ignore[misc]
        _may_reset = True

        @contextlib.contextmanager
        def automatic_resets(self) -> Iterator[None]:
            self._may_reset = True
            try:
                yield
            finally:
                self._may_reset = False

        def _reset_idx(self, env_ids: Any) -> None:
            if self._may_reset:
                super()._reset_idx(env_ids)

    return GroupEnvironment


def _function(name: str) -> Callable[[Any], Tensor]:
    """Return module:function.

    Raises:
        ConfigurationError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        function: Callable[[Any], Tensor] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise ConfigurationError(
            f"'{name}' cannot be imported: {problem}", expected="module:function"
        ) from problem
    return function
