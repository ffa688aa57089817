"""Recording: what a scripted demonstrator does, as episodes, and as samples to be cloned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.errors import TrainingError
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, generator
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.evaluation import HELD_OUT
from grpo_ros.training.rollout import Rollout

DEMONSTRATION = HELD_OUT + 1
"""Iteration number of demonstration keys; neither training nor evaluation uses it."""

OnEpisode = Callable[[int, int], None]
"""Called with (successful episodes so far, episodes wanted)."""


@dataclasses.dataclass(frozen=True)
class Episode:
    """T control steps of one successful episode.

    Attributes:
        obs: field -> (T, *shape), what was observed before each step.
        action: (T, A) float32, what the demonstrator wanted: this is cloned.
        executed: (T, A) float32, what was sent: the same with noise.
        states: T rows, the exact state before each step; None where it was not kept.
    """

    obs: dict[str, Tensor]
    action: Tensor
    executed: Tensor
    states: Snapshot | None = None

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.action)


@dataclasses.dataclass(frozen=True)
class Recording:
    """Successful episodes, and how many were tried for them."""

    episodes: tuple[Episode, ...]
    attempts: int

    @property
    def num_steps(self) -> int:
        """Control steps of all episodes together."""
        return sum(episode.num_steps for episode in self.episodes)


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """S samples: what was observed, and the chunk that the demonstrator took from there.

    Attributes:
        obs: field -> (S, *shape).
        chunk: (S, K, A) float32, the demonstrator's actions without execution noise.
        weight: (S, K) float32, 0 for steps beyond the end of the episode.
        episodes: how many successful episodes these are.
        attempts: how many were tried.
    """

    obs: dict[str, Tensor]
    chunk: Tensor
    weight: Tensor
    episodes: int
    attempts: int


def record_episodes(
    simulator: Simulator,
    episodes: int,
    action_noise: float,
    seed: int,
    on_episode: OnEpisode | None = None,
    keep_states: bool = False,
) -> Recording:
    """Record successful episodes of the task's demonstrator.

    Which these are depends on the seed alone, not on the number of environments.

    Args:
        simulator: its environments are used in batches.
        episodes: how many successes to record.
        action_noise: standard deviation of noise on what is executed; labels stay clean.
        seed: which initial states and noise.
        on_episode: told about each success.
        keep_states: whether the exact state before each step is kept.

    Raises:
        TrainingError: fewer than half of the attempts succeed.
    """
    task = simulator.task
    kept: list[Episode] = []
    attempts = 0
    while len(kept) < episodes:
        num = min(simulator.num_envs, episodes - len(kept) + 2)
        keys = [Key(seed, DEMONSTRATION, attempts + i) for i in range(num)]
        for episode in _attempt(simulator, keys, action_noise, keep_states):
            if len(kept) == episodes:
                break
            attempts += 1
            if episode is not None:
                kept.append(episode)
                if on_episode is not None:
                    on_episode(len(kept), episodes)
        if attempts >= 4 * episodes + 64 and len(kept) < attempts / 2:
            raise TrainingError(
                f"the demonstrator of '{task.name}' succeeded {len(kept)} of {attempts} times",
                expected="at least half",
                remedy="lower demonstrations.action_noise or mend the demonstrator",
            )
    return Recording(tuple(kept), attempts)


def to_samples(recording: Recording, chunk_size: int) -> Demonstrations:
    """Return a sample for every control step: an episode of T steps gives T chunks of K.

    A chunk that reaches beyond the end repeats the last action, with weight 0. Nothing of it
    depends on what else was recorded.
    """
    windows = [_windows(episode.action, chunk_size) for episode in recording.episodes]
    return Demonstrations(
        _joined([episode.obs for episode in recording.episodes]),
        torch.cat([chunk for chunk, _ in windows]),
        torch.cat([weight for _, weight in windows]),
        len(recording.episodes),
        recording.attempts,
    )


def record(
    simulator: Simulator,
    episodes: int,
    action_noise: float,
    seed: int,
    on_episode: OnEpisode | None = None,
) -> Demonstrations:
    """Record episodes as `record_episodes` does; return their samples."""
    recording = record_episodes(simulator, episodes, action_noise, seed, on_episode)
    return to_samples(recording, simulator.contract.chunk_size)


def fit_statistics(rollout: Rollout, policy: ChunkPolicy, ranks: Ranks = ONE_RANK) -> None:
    """Fit a policy's statistics to what all ranks' rollouts saw, for want of demonstrations."""
    seen = rollout.executed[:, :, 0]
    rows = {name: ranks.gather(value[seen]) for name, value in rollout.obs.items()}
    policy.fit_statistics(rows)


def _attempt(
    simulator: Simulator, keys: list[Key], action_noise: float, keep_states: bool
) -> list[Episode | None]:
    """Run the demonstrator once from each key; None where it failed."""
    task, num = simulator.task, len(keys)
    padded = keys + [keys[-1]] * (simulator.num_envs - num)
    obs = simulator.reset(task.sample(padded), None, padded)
    shape = (task.horizon, simulator.contract.action_size)
    noise = torch.from_numpy(
        np.stack([generator("demonstration_noise", key).standard_normal(shape) for key in padded])
    )
    observations, wanted, sent, executed = [], [], [], []
    trail: list[Snapshot] = []
    for step in range(task.horizon):
        if keep_states:
            trail.append(simulator.snapshot(range(num)))
        action = task.demonstrate(simulator.scene(), simulator.controller_state())
        noisy = (action + action_noise * noise[:, step] * _is_continuous(simulator)).float()
        result = simulator.step(noisy.unsqueeze(1))
        observations.append(obs)
        wanted.append(action.float())
        sent.append(noisy)
        executed.append(result.executed[:, 0])
        obs = result.obs
        if bool((result.terminated | result.truncated)[:num].all()):
            break
    stacked = {name: torch.stack([o[name] for o in observations], 1) for name in obs}
    actions, noisy_actions = torch.stack(wanted, 1), torch.stack(sent, 1)
    used = torch.stack(executed, 1)
    return [
        Episode(
            {name: value[env][used[env]] for name, value in stacked.items()},
            actions[env][used[env]],
            noisy_actions[env][used[env]],
            _states(trail, env, int(used[env].sum())) if keep_states else None,
        )
        if bool(result.outcome[env])
        else None
        for env in range(num)
    ]


def _states(trail: list[Snapshot], env: int, num_steps: int) -> Snapshot:
    """Return the states of one environment before each of its steps."""
    return Snapshot.joined([snapshot.rows([env]) for snapshot in trail[:num_steps]])


def _is_continuous(simulator: Simulator) -> Tensor:
    """Return 1 per action component that noise is added to, 0 for grippers, (A,)."""
    flags = [
        0.0 if field.kind == "gripper" else 1.0
        for field in simulator.contract.action
        for _ in field.names
    ]
    return torch.tensor(flags, dtype=torch.float64)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _windows(action: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Return chunks (T, K, A) that start at every step, and their weights (T, K)."""
    num_steps = len(action)
    index = torch.arange(num_steps).unsqueeze(1) + torch.arange(chunk_size)
    return action[index.clamp(max=num_steps - 1)], (index < num_steps).float()
