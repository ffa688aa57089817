"""BranchPoints: moments of the last rollouts at which new groups start."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros import randomness
from grpo_ros.randomness import Key
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.rollout import Rollout


class BranchPoints:
    """Chooses moments of rollouts, and holds their snapshots until groups start there.

    A group in mid-episode compares what can still be done from there: what came before is the same
    for all members (as VinePPO's values, 2410.01679, and Tree-GRPO's subtrees, 2509.21240, which
    restart text). Only rollouts that started as episodes do are branched.

    Attributes:
        snapshot: rows of the chosen moments; None where there are none.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self._trail: list[Snapshot] = []

    def forget_trail(self) -> None:
        """Begin a rollout."""
        self._trail = []

    def note(self, snapshot: Snapshot) -> None:
        """Take the state of all environments before a decision."""
        self._trail.append(snapshot)

    def choose(self, rollout: Rollout, scores: Tensor, num: int, key: Key) -> None:
        """Choose up to `num` moments of the rollout that was noted, each of another episode.

        Args:
            rollout: N episodes of T decisions.
            scores: (N, T) in [0, 1]: the best moment of an episode is the one with the highest;
                0: never. Equal ones are drawn evenly.
            num: how many are wanted.
            key: decides which.
        """
        num_episodes, num_decisions = scores.shape
        is_possible = self._possible(rollout) & (scores > 0.0)
        keys = [key._replace(member=env) for env in range(num_episodes)]
        chance = randomness.uniform("branch_point", keys, num_decisions + 1)
        best = highest(torch.where(is_possible, scores, -1.0), chance[:, :-1])
        order = torch.argsort(chance[:, -1]).tolist()
        chosen = [env for env in order if bool(is_possible[env].any())][:num]
        rows = [self._trail[int(best[env])].rows([env]) for env in chosen]
        self.snapshot = Snapshot.joined(rows) if rows else None
        self._trail = []

    def _possible(self, rollout: Rollout) -> Tensor:
        """Return which moments (N, T) are on the way of an episode, after its first decision."""
        possible = rollout.executed.any(dim=2)
        possible[:, 0] = False
        if rollout.starts is not None:
            is_initial = (rollout.starts == 0).repeat_interleave(rollout.group_size)
            possible &= is_initial.unsqueeze(1)
        return possible

    def state_dict(self) -> dict[str, Tensor]:
        """Return the chosen moments as flat tensors."""
        return self.snapshot.tensors() if self.snapshot is not None else {}

    def load_state_dict(self, state: Mapping[str, Tensor], engine: str) -> None:
        """Continue from `state_dict`; `engine` is that of snapshots that name none."""
        self.snapshot = Snapshot.from_tensors(state, engine) if state else None


def highest(scores: Tensor, chance: Tensor) -> Tensor:
    """Return where each row of scores (N, T) is highest, (N,); equal ones by chance (N, T)."""
    is_highest = scores == scores.amax(dim=1, keepdim=True)
    return torch.where(is_highest, chance, -1.0).argmax(dim=1)


def uniform_scores(rollout: Rollout) -> Tensor:
    """Return the same score for every moment, (N, T)."""
    return torch.ones(rollout.executed.shape[:2])


def divergence_scores(rollout: Rollout, predicted: Tensor) -> Tensor:
    """Return how much predicted success each decision of a failure lost, (N, T); 0 elsewhere.

    A decision that loses most is where failure parted from the successes of its group, so only
    groups with both outcomes count, where there are groups. Where the time limit cuts an episode
    its last decision lost nothing: all that is left to do from there is to run out of time again.

    Args:
        rollout: N episodes of T decisions.
        predicted: (N, T) probability of success before each decision.
    """
    failed = rollout.outcome < 0.5
    if rollout.group_size > 1:
        groups = (~failed).view(rollout.num_groups, rollout.group_size)
        is_mixed = groups.any(dim=1) & ~groups.all(dim=1)
        failed = failed & is_mixed.repeat_interleave(rollout.group_size)
    acted = rollout.executed.any(dim=2)
    known = torch.where(acted, predicted, 0.0)  # what ends an episode as a failure loses all
    after = torch.cat([known[:, 1:], torch.zeros_like(known[:, :1])], dim=1)
    is_last = torch.arange(acted.shape[1]) == acted.sum(dim=1, keepdim=True) - 1
    after = torch.where(is_last & rollout.truncated.unsqueeze(1), known, after)
    return torch.where(acted & failed.unsqueeze(1), (known - after).clamp(min=0.0), 0.0)
