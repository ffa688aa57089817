"""Demonstrations: what a scripted demonstrator does, recorded as observations and chunks."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.errors import TrainingError
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.randomness import Key, generator
from grpo_ros.simulators.base import Simulator
from grpo_ros.training.evaluation import HELD_OUT
from grpo_ros.training.rollout import Rollout

DEMONSTRATION = HELD_OUT + 1
"""Iteration number of demonstration keys; neither training nor evaluation uses it."""


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


def record(simulator: Simulator, episodes: int, action_noise: float, seed: int) -> Demonstrations:
    """Record successful episodes of the task's demonstrator.

    Every control step starts a sample, so an episode of t steps gives t chunks.

    Args:
        simulator: its environments are used in batches.
        episodes: how many successes to record.
        action_noise: standard deviation of noise on what is executed; labels stay clean.
        seed: which initial states and noise.

    Raises:
        TrainingError: fewer than half of the attempts succeed.
    """
    task = simulator.task
    kept: list[Demonstrations] = []
    attempts = successes = 0
    while successes < episodes:
        num = min(simulator.num_envs, episodes - successes + 2)
        keys = [Key(seed, DEMONSTRATION, attempts + i) for i in range(num)]
        for demonstration in _attempt(simulator, keys, action_noise):
            if successes == episodes:
                break
            attempts += 1
            if demonstration is not None:
                kept.append(demonstration)
                successes += 1
        if attempts >= 4 * episodes + 64 and successes < attempts / 2:
            raise TrainingError(
                f"the demonstrator of '{task.name}' succeeded {successes} of {attempts} times",
                expected="at least half",
                remedy="lower demonstrations.action_noise or mend the demonstrator",
            )
    return Demonstrations(
        {name: torch.cat([d.obs[name] for d in kept]) for name in kept[0].obs},
        torch.cat([d.chunk for d in kept]),
        torch.cat([d.weight for d in kept]),
        successes,
        attempts,
    )


def fit_statistics(rollout: Rollout, policy: ChunkPolicy, ranks: Ranks = ONE_RANK) -> None:
    """Fit a policy's statistics to what all ranks' rollouts saw, for want of demonstrations."""
    seen = rollout.executed[:, :, 0]
    rows = {name: ranks.gather(value[seen]) for name, value in rollout.obs.items()}
    policy.fit_statistics(rows)


def _attempt(
    simulator: Simulator, keys: list[Key], action_noise: float
) -> list[Demonstrations | None]:
    """Run the demonstrator once from each key; None where it failed."""
    task, num = simulator.task, len(keys)
    padded = keys + [keys[-1]] * (simulator.num_envs - num)
    obs = simulator.reset(task.sample(padded), None, padded)
    shape = (task.horizon, simulator.contract.action_size)
    noise = torch.from_numpy(
        np.stack([generator("demonstration_noise", key).standard_normal(shape) for key in padded])
    )
    observations, actions, executed = [], [], []
    for step in range(task.horizon):
        action = task.demonstrate(simulator.scene(), simulator.controller_state())
        noisy = action + action_noise * noise[:, step] * _is_continuous(simulator)
        result = simulator.step(noisy.unsqueeze(1).float())
        observations.append(obs)
        actions.append(action.float())
        executed.append(result.executed[:, 0])
        obs = result.obs
        if bool((result.terminated | result.truncated)[:num].all()):
            break
    stacked = {name: torch.stack([o[name] for o in observations], 1) for name in obs}
    chunks, weights = _windows(
        torch.stack(actions, 1), torch.stack(executed, 1), simulator.contract.chunk_size
    )
    found: list[Demonstrations | None] = []
    for env in range(num):
        if not bool(result.outcome[env]):
            found.append(None)
            continue
        used = weights[env, :, 0] > 0
        found.append(
            Demonstrations(
                {name: value[env][used] for name, value in stacked.items()},
                chunks[env][used],
                weights[env][used],
                1,
                1,
            )
        )
    return found


def _is_continuous(simulator: Simulator) -> Tensor:
    """Return 1 per action component that noise is added to, 0 for grippers, (A,)."""
    flags = [
        0.0 if field.kind == "gripper" else 1.0
        for field in simulator.contract.action
        for _ in field.names
    ]
    return torch.tensor(flags, dtype=torch.float64)


def _windows(actions: Tensor, executed: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """Return chunks (N, T, K, A) starting at every step and their weights (N, T, K)."""
    num_steps = actions.shape[1]
    index = torch.arange(num_steps).unsqueeze(1) + torch.arange(chunk_size)
    inside = index < num_steps
    index = index.clamp(max=num_steps - 1)
    return actions[:, index], executed[:, index].float() * inside
