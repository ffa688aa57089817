"""Collector: groups of rollouts from one exact state each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from grpo_ros import randomness
from grpo_ros.errors import SimulatorError
from grpo_ros.policies.base import ActionSample, Policy, stack_samples
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Simulator, StepResult
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.demonstrations.recording import DEMONSTRATION
from grpo_ros.training.failures.store import FailureStore
from grpo_ros.training.group_paths import PathTrace
from grpo_ros.training.rollout import Rollout
from grpo_ros.training.starts.starts import Starts


class GroupCollector:
    """Rolls out M groups of G members with one policy.

    Args:
        simulator: with at least num_groups * group_size environments, all of which are used.
        num_groups: M.
        group_size: G.
        antithetic: whether members 2i and 2i + 1 of a group get opposite noise. Their mean then
            holds what the squares of the noise bring, so a group's baseline takes 2 / G of it
            from the gradient of a learned spread.
        first_group: number of the first group; the others count on from it. States and noise
            belong to a group's number, so ranks that share them draw what one would.
        starts: draws where groups start; None: at the task's initial states.
        trace: follows where rollouts go; None: nobody looks.
        failures: keeps rollouts that failed; None: none are kept.
    """

    def __init__(
        self,
        simulator: Simulator,
        num_groups: int,
        group_size: int,
        antithetic: bool = False,
        first_group: int = 0,
        starts: Starts | None = None,
        trace: PathTrace | None = None,
        failures: FailureStore | None = None,
    ) -> None:
        if simulator.num_envs != num_groups * group_size:
            raise SimulatorError(
                f"{simulator.num_envs} environments for {num_groups} groups of {group_size}",
                expected=f"{num_groups * group_size}",
            )
        self.simulator, self.starts, self.trace = simulator, starts, trace
        self.num_groups, self.group_size = num_groups, group_size
        self.antithetic, self.failures = antithetic, failures
        self._first_env = first_group * group_size

    def collect(
        self, policy: Policy, seed: int, iteration: int, group_size: int | None = None
    ) -> Rollout:
        """Draw M initial states and roll out G members of each; see `collect_from`.

        Args:
            policy: decides.
            seed, iteration: with a group's number, of its state; with a member's, of its noise.
            group_size: of this rollout, in as many groups as fill the environments; None: G.
        """
        size = self.group_size if group_size is None else group_size
        keys = [Key(seed, iteration, group) for group in self._groups(size)]
        ids = torch.arange(len(keys)) * size
        if self.starts is None:
            self.simulator.reset(self.simulator.task.sample(keys), ids, keys)
            return self.collect_from(policy, self.simulator.snapshot(ids), seed, iteration, size)
        drawn = self.starts.draw(keys, ids)
        rollout = self.collect_from(policy, drawn.snapshot, seed, iteration, size)
        return dataclasses.replace(rollout, starts=drawn.kinds)

    def collect_from(
        self,
        policy: Policy,
        snapshot: Snapshot,
        seed: int,
        iteration: int,
        group_size: int | None = None,
    ) -> Rollout:
        """Roll out G members from each row of a snapshot, at whatever moment it was taken.

        Raises:
            SimulatorError: members of a group do not start from the same state, or two members
                would draw the same noise.
        """
        size = self.group_size if group_size is None else group_size
        rows = torch.arange(snapshot.num_rows).repeat_interleave(size)
        obs = self.simulator.restore(snapshot, rows)
        self._check_groups(snapshot, size)
        keys = self._member_keys(seed, iteration, size)
        noise = self._noise(policy, keys)
        observations: list[dict[str, Tensor]] = []
        samples: list[ActionSample] = []
        results: list[StepResult] = []
        if self.trace is not None:
            self.trace.begin()
        with torch.no_grad():
            for decision in range(noise.shape[1]):
                self._note()
                seen = policy.perceive(obs)
                sample = policy.act(seen, noise[:, decision])
                result = self.simulator.step(sample.chunk)
                observations.append(dict(seen))
                samples.append(sample)
                results.append(result)
                obs = result.obs
                if bool((result.terminated | result.truncated).all()):
                    break
        if self.trace is not None:
            self.trace.note()
        began = snapshot.step_count[rows]
        rollout = self._rollout(observations, samples, results, began, size)
        if self.failures is not None and iteration != DEMONSTRATION:
            final = self.simulator.snapshot().row_hashes()
            self.failures.keep(iteration, self._groups(size), snapshot, final, rollout)
        return rollout

    def _note(self) -> None:
        """Tell whoever follows that a decision is next."""
        for follower in (self.starts, self.trace):
            if follower is not None:
                follower.note()

    def _groups(self, size: int) -> range:
        """Return the numbers of the groups of this size that fill the environments."""
        first = self._first_env // size
        return range(first, first + self.simulator.num_envs // size)

    def _check_groups(self, snapshot: Snapshot, size: int) -> None:
        expected = [h for h in snapshot.row_hashes() for _ in range(size)]
        found = self.simulator.snapshot().row_hashes()
        for env, (want, got) in enumerate(zip(expected, found, strict=True)):
            if want != got:
                raise SimulatorError(
                    f"environment {env} of group {env // size} starts from state {got}",
                    expected=f"state {want}, bit for bit",
                    remedy="the simulator's restore is not exact",
                )

    def _member_keys(self, seed: int, iteration: int, size: int) -> list[Key]:
        keys = [
            Key(seed, iteration, group, member)
            for group in self._groups(size)
            for member in range(size)
        ]
        if len(set(keys)) != len(keys):
            raise SimulatorError("two members of a rollout share a noise key")
        return keys

    def _noise(self, policy: Policy, keys: Sequence[Key]) -> Tensor:
        """Return the noise (N, T, *noise_shape) of all decisions.

        Antithetic pairs share a state, so what both noises do alike cancels in their difference
        and the estimate of the gradient varies less (mirrored sampling: Brockhoff et al.,
        "Mirrored sampling and sequential selection for evolution strategies", PPSN 2010). Each
        member's own noise stays standard normal, so its likelihood is what it was.
        """
        chunk_size = self.simulator.contract.chunk_size
        num_decisions = -(-self.simulator.task.horizon // chunk_size)
        shape = (num_decisions, *policy.noise_shape)
        if not self.antithetic:
            return randomness.normal("policy_noise", keys, shape)
        drawn = randomness.normal("policy_noise", [k for k in keys if k.member % 2 == 0], shape)
        first = [i for i, key in enumerate(keys) if key.member % 2 == 0]
        noise = drawn.new_empty(len(keys), *shape)
        noise[first] = drawn
        mirrored = [i for i, key in enumerate(keys) if key.member % 2 == 1]
        noise[mirrored] = -noise[[i - 1 for i in mirrored]]
        return noise

    def _rollout(
        self,
        observations: list[dict[str, Tensor]],
        samples: list[ActionSample],
        results: list[StepResult],
        began: Tensor,
        size: int,
    ) -> Rollout:
        last = results[-1]
        return Rollout(
            obs={
                name: torch.stack([obs[name] for obs in observations], dim=1)
                for name in observations[0]
            },
            sample=stack_samples(samples),
            executed=torch.stack([result.executed for result in results], dim=1),
            reward_terms=torch.stack([result.reward_terms for result in results], dim=1),
            terminated=last.terminated,
            truncated=last.truncated,
            final_obs=last.final_obs,
            outcome=last.outcome.float(),
            score=last.score,
            step_count=began,
            time_limit=self.simulator.task.horizon,
            num_groups=len(last.outcome) // size,
            group_size=size,
            reward_names=tuple(self.simulator.task.reward_names),
        )
