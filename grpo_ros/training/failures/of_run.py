"""ReplayedRun: a run's failures, with the simulator and the policy to look at them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from grpo_ros import configuration
from grpo_ros.errors import CheckpointError, ReplayError
from grpo_ros.policies import make_policy
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.checkpoint import newest_valid
from grpo_ros.training.failures.failure import Failure, FailureId
from grpo_ros.training.failures.replay import (
    Branches,
    branch,
    held_out_failure,
    replay,
    spread_decisions,
)
from grpo_ros.training.failures.store import FailureStore
from grpo_ros.training.placement import place_simulator, without_ros
from grpo_ros.training.run_directory import CONFIG_FILE, RunDirectory
from grpo_ros.training.settings import TrainConfig

Say = Callable[[str], None]


class ReplayedRun:
    """The failures of a run's folder.

    Args:
        path: the folder.

    Raises:
        ReplayError: it is no run.
    """

    def __init__(self, path: Path) -> None:
        if not (path / CONFIG_FILE).is_file():
            raise ReplayError(
                f"{path}", expected="a run's folder, with its config.yaml", remedy="--run DIR"
            )
        self.path, self.run = path, RunDirectory(path)
        self.store = FailureStore(self.run.failures)
        layer = configuration.read_layer(path / CONFIG_FILE)
        self.config = without_ros(configuration.merge(TrainConfig, [layer]))

    @property
    def task_settings(self) -> Any:
        """The settings of its task."""
        return configuration.section(self.config, "task")

    def held_out_failures(self) -> tuple[list[int], int] | None:
        """Return which held-out episodes failed, and of how many; None: none were run yet."""
        found = self.run.read_json("outcomes.json")
        if found is None:
            return None
        outcomes = found["outcome"]
        return [number for number, outcome in enumerate(outcomes) if not outcome], len(outcomes)

    @contextlib.contextmanager
    def opened(
        self,
        name: FailureId,
        decisions: Sequence[int] | None = None,
        members: int = 0,
        most_points: int = 1,
    ) -> Iterator[OpenedFailure]:
        """Make the simulator in which one failure can be replayed and branched.

        Args:
            name: of the failure.
            decisions: before which to branch; None: some, evenly spread.
            members: new rollouts from each of them.
            most_points: how many moments at most, where they are not named.

        Raises:
            ReplayError: nothing of that name is kept.
            CheckpointError: the run has no checkpoint to branch with.
        """
        task = make_task(self.config.task, self.task_settings)
        kept = None if name.held_out is not None else self.store.load(name)
        is_named = decisions is not None
        if decisions is None:
            chunk_size = task.contract().num_executed if kept is None else kept.chunks.shape[1]
            length = -(-task.horizon // chunk_size) if kept is None else _length(kept)
            decisions = spread_decisions(length, most_points)
        num_envs = max(1, len(decisions) * members)
        simulator = place_simulator(self.config, task, num_envs, None, print)
        try:
            policy = None
            if members or kept is None:
                policy = self._policy(simulator)
            if kept is None:
                assert policy is not None and name.held_out is not None
                kept = held_out_failure(simulator, policy, name.held_out)
            if not is_named:
                last = _length(kept) - 1
                decisions = [min(decision, last) for decision in decisions]
            yield OpenedFailure(kept, simulator, policy, decisions, members)
        finally:
            simulator.close()

    def _policy(self, simulator: Simulator) -> ChunkPolicy:
        """Return the deployed policy of the newest checkpoint."""
        checkpoint, state, skipped = newest_valid(self.run.checkpoints)
        if checkpoint is None or state is None:
            raise CheckpointError(
                f"{self.path} has no readable checkpoint ({'; '.join(skipped)})",
                remedy="--members 0 replays without a policy",
            )
        policy = make_policy(configuration.section(self.config, "policy"), simulator.contract)
        policy.load_state_dict(state["deployed"]["policy"])
        return policy


def _length(failure: Failure) -> int:
    return int(failure.executed.any(dim=1).sum())


class OpenedFailure:
    """A failure in a simulator, where it has just been lived through again.

    Args:
        failure: it.
        simulator: with an environment for each new rollout.
        policy: decides in new rollouts; None: there are none.
        decisions: before which they branch off.
        members: of each.

    Attributes:
        replayed: what the rollout was.
    """

    def __init__(
        self,
        failure: Failure,
        simulator: Simulator,
        policy: ChunkPolicy | None,
        decisions: Sequence[int],
        members: int,
    ) -> None:
        self.failure, self.simulator = failure, simulator
        self._policy, self._decisions, self._members = policy, tuple(decisions), members
        self.replayed = replay(simulator, failure)

    @property
    def period_s(self) -> float:
        """Of a control step."""
        return self.simulator.contract.period_s

    def branch(self, seed: int, is_traced: bool = False) -> Branches:
        """Let the policy go on from moments of the rollout; see `replay.branch`."""
        if self._policy is None or not self._members:
            raise ReplayError(f"rollout {self.failure.id} was opened to be replayed alone")
        return branch(
            self.simulator,
            self._policy,
            self.replayed,
            self._decisions,
            self._members,
            seed,
            is_traced,
        )

    def film(self, folder: Path, branches: Branches | None, most: int, say: Say) -> list[Path]:
        """Film the rollout, and beside it new ones from the last moment that could be saved.

        Returns:
            The films that were written.
        """
        from grpo_ros.report.film import film_rollouts

        films = {"replay.webp": (self.failure.start, self.failure.chunks.unsqueeze(0))}
        if branches is not None:
            films["branches.webp"] = self._beside(branches, most)
        written = []
        for name, (start, chunks) in films.items():
            problem = film_rollouts(self.simulator, start, chunks, folder / name)
            if problem:
                say(f"no film {name}: {problem}")
            else:
                written.append(folder / name)
        return written

    def _beside(self, branches: Branches, most: int) -> tuple[Snapshot, torch.Tensor]:
        """Return the state and the actions of the rest of the rollout, then of new ones."""
        point = branches.last_good or branches.points[0]
        place = self._decisions.index(point.decision)
        num = min(most, self._members, self.simulator.num_envs - 1)
        states = self.replayed.states.rows([point.decision])
        rest = self.failure.chunks[point.decision :]
        first = place * self._members
        new = branches.rollout.sample.chunk[first : first + num]
        length = max(len(rest), new.shape[1])
        parts = [_lengthened(rest.unsqueeze(0), length), _lengthened(new, length)]
        return states.rows([0] * (1 + num)), torch.cat(parts)


def _lengthened(chunks: torch.Tensor, length: int) -> torch.Tensor:
    """Return actions (n, T, K, A) with at least so many decisions; the last is repeated."""
    missing = length - chunks.shape[1]
    return torch.cat([chunks, chunks[:, -1:].expand(-1, missing, -1, -1)], dim=1)
