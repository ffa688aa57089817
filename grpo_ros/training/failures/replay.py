"""Replay: a rollout lived through again, and what else could have become of it.

A simulator that restores exactly repeats a rollout bit for bit from its first state and its
actions, and can go back to any moment of it: the share of new rollouts that still succeed from
there says where it was lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo_ros.errors import ReplayError
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.evaluation import HELD_OUT, held_out_keys
from grpo_ros.training.failures.failure import Failure, FailureId
from grpo_ros.training.group_paths import GroupPaths, PathTrace
from grpo_ros.training.rollout import Rollout
from grpo_ros.training.statistics import wilson_interval

BRANCH_ITERATION = HELD_OUT + 2
"""Of the noise of branches: no iteration of a training run has this number."""


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a rollout was.

    Attributes:
        failure: that was replayed.
        scenes: before its first control period and after each.
        states: before each decision, T rows.
        outcome, score: as they are now.
        final_hash: of the state it ended in now.
    """

    failure: Failure
    scenes: Sequence[SceneState]
    states: Snapshot
    outcome: bool
    score: float
    final_hash: str

    @property
    def is_exact(self) -> bool:
        """Whether it ended in the very state that it ended in then."""
        return self.final_hash == self.failure.final_hash


def replay(simulator: Simulator, failure: Failure) -> Replay:
    """Live through a rollout again in the first environment; the others have to be finished.

    Raises:
        SimulatorError: another engine, task or robot than it was recorded with.
    """
    simulator.restore(failure.start, [0], [0])
    scenes = [simulator.scene().rows([0])]
    states = []
    before, simulator.watch = simulator.watch, lambda scene, _: scenes.append(scene())
    try:
        for chunk, executed in zip(failure.chunks, failure.executed, strict=True):
            if not bool(executed.any()):
                break
            states.append(simulator.snapshot([0]))
            result = simulator.step(chunk.expand(simulator.num_envs, *chunk.shape))
    finally:
        simulator.watch = before
    if not states:
        raise ReplayError(f"rollout {failure.id} holds no action")
    return Replay(
        failure,
        scenes,
        Snapshot.joined(states),
        bool(result.outcome[0]),
        float(result.score[0]),
        simulator.snapshot([0]).row_hashes()[0],
    )


def held_out_failure(simulator: Simulator, policy: ChunkPolicy, number: int) -> Failure:
    """Return what a policy's most likely actions make of a held-out initial state.

    It happens in the first environment; the others have to be finished.
    """
    keys = held_out_keys(1, first=number)
    obs = simulator.reset(simulator.task.sample(keys), [0], keys)
    start = simulator.snapshot([0])
    chunks, executed = [], []
    with torch.no_grad():
        while True:
            chunk = policy.mode(obs)[0, : simulator.contract.num_executed]
            result = simulator.step(chunk.expand(simulator.num_envs, *chunk.shape))
            chunks.append(chunk)
            executed.append(result.executed[0])
            obs = {name: value[:1] for name, value in result.obs.items()}
            if bool((result.terminated | result.truncated)[0]):
                break
    return Failure(
        FailureId(held_out=number),
        start,
        torch.stack(chunks),
        torch.stack(executed),
        float(result.score[0]),
        float(result.outcome[0]),
        simulator.snapshot([0]).row_hashes()[0],
    )


@dataclasses.dataclass(frozen=True)
class Branch:
    """What became of new rollouts from one moment of a rollout.

    Attributes:
        decision: before which they branch off.
        time_s: of that moment, from the rollout's start.
        successes: of them. num: how many they were.
    """

    decision: int
    time_s: float
    successes: int
    num: int

    @property
    def wilson_95(self) -> tuple[float, float]:
        """95 % interval of the share that succeeds."""
        return wilson_interval(self.successes, self.num)


@dataclasses.dataclass(frozen=True)
class Branches:
    """New rollouts from moments of a rollout.

    Attributes:
        points: the moments.
        rollout: a group for each of them.
        paths: where the robot's tip went; None: it was not followed.
    """

    points: Sequence[Branch]
    rollout: Rollout
    paths: GroupPaths | None = None

    @property
    def last_good(self) -> Branch | None:
        """The last moment from which at least half still succeeded; None: there is none."""
        good = [point for point in self.points if 2 * point.successes >= point.num]
        return good[-1] if good else None


def branch(
    simulator: Simulator,
    policy: ChunkPolicy,
    replayed: Replay,
    decisions: Sequence[int],
    members: int,
    seed: int = 0,
    is_traced: bool = False,
) -> Branches:
    """Let a policy go on from moments of a rollout, with noise of its own.

    Args:
        simulator: with len(decisions) * members environments.
        policy: decides from there on.
        replayed: the rollout.
        decisions: before which to branch off.
        members: rollouts of each moment.
        seed: of the noise.
        is_traced: whether the paths of the robot's tip are wanted.

    Raises:
        ReplayError: the rollout has no such decision.
    """
    num = replayed.states.num_rows
    for decision in decisions:
        if not 0 <= decision < num:
            raise ReplayError(
                f"decision {decision} of rollout {replayed.failure.id}",
                expected=f"0 to {num - 1}",
            )
    trace = PathTrace(simulator)
    collector = GroupCollector(
        simulator,
        len(decisions),
        members,
        trace=trace if is_traced and trace.is_possible else None,
    )
    rollout = collector.collect_from(
        policy, replayed.states.rows(decisions), seed, BRANCH_ITERATION
    )
    successes = (rollout.outcome >= 0.5).view(-1, members).sum(dim=1).tolist()
    steps, period_s = replayed.failure.executed.sum(dim=1), simulator.contract.period_s
    begun = steps.cumsum(0) - steps
    points = {
        decision: Branch(decision, float(begun[decision]) * period_s, int(count), members)
        for decision, count in reversed(list(zip(decisions, successes, strict=True)))
    }
    paths = None if collector.trace is None else trace.paths(rollout, 0)
    return Branches([points[decision] for decision in sorted(points)], rollout, paths)


def spread_decisions(num: int, most: int) -> list[int]:
    """Return at most so many of `num` decisions, evenly spread, with the first and the last."""
    if num <= most:
        return list(range(num))
    places: Tensor = torch.linspace(0, num - 1, most).round().long()
    return sorted(set(places.tolist()))
