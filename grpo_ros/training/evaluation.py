"""Evaluation: success on fixed held-out initial states, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from grpo_ros.distributed.ranks import Ranks
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Observation, Simulator
from grpo_ros.training.statistics import wilson_interval

HELD_OUT = 2**62
"""Iteration number of held-out keys; training's iterations never reach it."""
HELD_OUT_SEED = 20_000
CURVE_SEED = 10_000
"""The curve's states are others than the final evaluation's, so that stopping early or choosing
a checkpoint by the curve does not flatter the final figure."""

Decide = Callable[[Observation], Tensor]
"""Observation of N environments -> chunk (N, K, A)."""


def held_out_keys(episodes: int, seed: int = HELD_OUT_SEED, first: int = 0) -> list[Key]:
    """Return the keys of the held-out initial states, the same for every algorithm and seed."""
    return [Key(seed, HELD_OUT, index) for index in range(first, first + episodes)]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Outcomes of E episodes.

    Attributes:
        outcome: (E,) bool. score: (E,) float32. num_steps: (E,) control periods until the end.
    """

    outcome: Tensor
    score: Tensor
    num_steps: Tensor

    @property
    def successes(self) -> int:
        """Episodes whose outcome was verified."""
        return int(self.outcome.sum())

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.outcome)

    @property
    def success_rate(self) -> float:
        """successes / episodes."""
        return self.successes / max(1, self.episodes)

    @property
    def wilson_95(self) -> tuple[float, float]:
        """95 % interval of the success rate."""
        return wilson_interval(self.successes, self.episodes)

    def of_all_ranks(self, ranks: Ranks) -> Evaluation:
        """Return all ranks' outcomes, in rank order."""
        parts = (self.outcome, self.score, self.num_steps)
        return Evaluation(*(ranks.gather(part) for part in parts))

    def to_json(self) -> dict[str, Any]:
        """Return successes, episodes and their interval."""
        return {
            "successes": self.successes,
            "episodes": self.episodes,
            "wilson_95": list(self.wilson_95),
        }

    def __str__(self) -> str:
        low, high = self.wilson_95
        return (
            f"{self.success_rate:.3f} [{low:.3f}, {high:.3f}] ({self.successes}/{self.episodes})"
        )


def evaluate(simulator: Simulator, decide: Decide, keys: list[Key]) -> Evaluation:
    """Run one episode from each key's initial state and verify its outcome.

    Args:
        simulator: its environments are used in batches; results do not depend on its size.
        decide: gives the deployed action.
        keys: of initial states, e.g. `held_out_keys(1000)`; none give no outcomes.
    """
    if not keys:
        return Evaluation(torch.zeros(0, dtype=torch.bool), torch.zeros(0), torch.zeros(0).long())
    outcomes, scores, steps = [], [], []
    contract, task = simulator.contract, simulator.task
    for start in range(0, len(keys), simulator.num_envs):
        batch = keys[start : start + simulator.num_envs]
        ids = torch.arange(len(batch))
        if start == 0:
            # Environments beyond the batch repeat its last key, so that all of them are defined.
            batch += [batch[-1]] * (simulator.num_envs - len(batch))
            obs = simulator.reset(task.sample(batch), None, batch)
        else:
            # Those beyond a later batch stay as the one before left them: ended, at no cost.
            simulator.reset(task.sample(batch), ids, batch)
            obs = simulator.observe()
        done = torch.zeros(simulator.num_envs, dtype=torch.bool)
        count = torch.zeros(simulator.num_envs, dtype=torch.long)
        with torch.no_grad():
            while not bool(done[ids].all()):
                result = simulator.step(decide(obs)[:, : contract.num_executed])
                count += result.executed.sum(dim=1)
                done = result.terminated | result.truncated
                obs = result.obs
        outcomes.append(result.outcome[ids])
        scores.append(result.score[ids])
        steps.append(count[ids])
    return Evaluation(torch.cat(outcomes), torch.cat(scores), torch.cat(steps))
