"""Rollout: what the collector hands to an algorithm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from grpo_ros.policies.base import ActionSample

START_KINDS = ("initial", "branch", "demonstration")
"""Where a group may start: as an episode does, on the way of a rollout, or of a demonstration."""


@dataclasses.dataclass(frozen=True)
class Rollout:
    """M groups of G rollouts from one state each; environment n = group * G + member.

    T is the number of decisions (chunks) of the longest episode; rows beyond an episode's end are
    masked by `executed`, never dropped.

    Attributes:
        obs: field -> (N, T, *shape), what the policy perceived at each decision.
        sample: leading dimensions (N, T).
        executed: (N, T, K) bool, which steps were carried out.
        reward_terms: (N, T, K, R) float32, by `reward_names`.
        terminated: (N,) bool; truncated: (N,) bool, how the episode ended.
        final_obs: field -> (N, *shape), what was observed at the episode's end.
        outcome: (N,) float32, 1 where the verified outcome holds.
        score: (N,) float32 in [0, 1], partial credit.
        step_count: (N,) int64, control steps of the episode before these; 0 at its beginning.
        time_limit: control steps after which an episode is cut.
        num_groups: M. group_size: G.
        starts: (M,) int64, of START_KINDS; None: every group starts as an episode does.
    """

    obs: Mapping[str, Tensor]
    sample: ActionSample
    executed: Tensor
    reward_terms: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Mapping[str, Tensor]
    outcome: Tensor
    score: Tensor
    step_count: Tensor
    time_limit: int
    num_groups: int
    group_size: int
    reward_names: tuple[str, ...]
    starts: Tensor | None = None

    @property
    def num_env_steps(self) -> int:
        """Control steps carried out, summed over environments."""
        return int(self.executed.sum())

    def time_passed(self) -> Tensor:
        """Return the share of the time limit gone before each decision, and at the end.

        (N, T + 1) float32; rows beyond an episode's end have that of its end.
        """
        steps = self.executed.sum(dim=2).cumsum(dim=1)
        steps = torch.cat([torch.zeros_like(steps[:, :1]), steps], dim=1)
        return (self.step_count.unsqueeze(1) + steps) / float(self.time_limit)

    def changed(self, change: Callable[[Tensor], Tensor]) -> Rollout:
        """Return a rollout each of whose tensors with a row per episode is changed."""
        sample = self.sample
        return dataclasses.replace(
            self,
            obs={name: change(value) for name, value in self.obs.items()},
            sample=ActionSample(
                change(sample.chunk),
                change(sample.log_prob),
                {name: change(value) for name, value in sample.latents.items()},
            ),
            executed=change(self.executed),
            reward_terms=change(self.reward_terms),
            terminated=change(self.terminated),
            truncated=change(self.truncated),
            final_obs={name: change(value) for name, value in self.final_obs.items()},
            outcome=change(self.outcome),
            score=change(self.score),
            step_count=change(self.step_count),
        )

    def with_groups(self, groups: Sequence[int] | Tensor) -> Rollout:
        """Return the rollouts of the given groups, in that order."""
        chosen = torch.as_tensor(groups, dtype=torch.long)
        members = torch.arange(self.group_size)
        rows = (chosen.unsqueeze(1) * self.group_size + members).flatten()
        starts = None if self.starts is None else self.starts[chosen]
        part = self.changed(lambda value: value[rows])
        return dataclasses.replace(part, num_groups=len(chosen), starts=starts)

    def begun_as_episodes(self) -> Rollout:
        """Return the groups that start as episodes do; all, where none does."""
        if self.starts is None or not bool((self.starts == 0).any()):
            return self
        return self.with_groups(torch.nonzero(self.starts == 0).flatten())

    def lengthened(self, num_decisions: int) -> Rollout:
        """Return the rollout with at least so many decisions.

        Added ones repeat the last, and are not executed: rows of an episode that ended earlier
        than another are there and masked.
        """
        present = self.executed.shape[1]
        missing = num_decisions - present
        if missing <= 0:
            return self

        def longer(value: Tensor) -> Tensor:
            return torch.cat([value, value[:, -1:].expand(-1, missing, *value.shape[2:])], dim=1)

        sample = self.sample
        executed, rewards = longer(self.executed), longer(self.reward_terms)
        executed[:, present:], rewards[:, present:] = False, 0.0
        return dataclasses.replace(
            self,
            obs={name: longer(value) for name, value in self.obs.items()},
            sample=ActionSample(
                longer(sample.chunk),
                longer(sample.log_prob),
                {name: longer(value) for name, value in sample.latents.items()},
            ),
            executed=executed,
            reward_terms=rewards,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor with a row per episode, by name."""
        sample = self.sample
        return {
            **{f"obs/{name}": value for name, value in self.obs.items()},
            **{f"final_obs/{name}": value for name, value in self.final_obs.items()},
            **{f"latents/{name}": value for name, value in sample.latents.items()},
            "chunk": sample.chunk,
            "log_prob": sample.log_prob,
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Rollout:
        """Return a rollout of the same group size whose `tensors` are these."""

        def below(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}/"
            return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

        sample = ActionSample(tensors["chunk"], tensors["log_prob"], below("latents"))
        plain: dict[str, Any] = {name: tensors[name] for name in _PLAIN}
        return dataclasses.replace(
            self,
            obs=below("obs"),
            final_obs=below("final_obs"),
            sample=sample,
            num_groups=len(tensors["chunk"]) // self.group_size,
            starts=None,
            **plain,
        )


_PLAIN = ("executed", "reward_terms", "terminated", "truncated", "outcome", "score", "step_count")
