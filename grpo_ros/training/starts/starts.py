"""Starts: the exact states that an iteration's groups start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grpo_ros import randomness
from grpo_ros.algorithms.policy_gradient import take
from grpo_ros.distributed.ranks import Ranks
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.chunk_policy import ChunkPolicy
from grpo_ros.policies.critic import with_time
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.training.demonstrations.recording import record_episodes
from grpo_ros.training.rollout import START_KINDS, Rollout
from grpo_ros.training.settings import TrainConfig
from grpo_ros.training.starts.branch_points import (
    BranchPoints,
    divergence_scores,
    uniform_scores,
)
from grpo_ros.training.starts.config import StartConfig
from grpo_ros.training.starts.curriculum import Curriculum
from grpo_ros.training.starts.outcome_predictor import OutcomePredictor

INITIAL, BRANCH, DEMONSTRATION = range(len(START_KINDS))
FLOOR = 0.02
"""Added to p (1 - p), so that no initial state is never drawn."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """M starts.

    Attributes:
        snapshot: M rows.
        kinds: (M,) int64, of START_KINDS; None where all start as episodes do.
    """

    snapshot: Snapshot
    kinds: Tensor | None = None


class Starts:
    """Draws where groups start, and learns from what became of them.

    A draw is decided by the state and the keys, and changes nothing, so that it can be repeated;
    `learn` changes the state.

    Args:
        config: settings.
        simulator: whose states these are.
        policy: its features predict success.
        seed: of the run.
    """

    def __init__(
        self, config: StartConfig, simulator: Simulator, policy: ChunkPolicy, seed: int
    ) -> None:
        self.config, self.simulator, self.policy, self.seed = config, simulator, policy, seed
        self.branches = BranchPoints()
        self.curriculum = Curriculum(config.curriculum_step, config.curriculum_success)
        self.predictor: OutcomePredictor | None = None
        if config.needs_prediction:
            self.predictor = OutcomePredictor(policy.num_features + 1, seed)

    def begin(self, action_noise: float) -> None:
        """Record the states along demonstrations, where groups are to start there.

        Raises:
            TrainingError: the task's script fails too often.
        """
        config = self.config
        if not config.curriculum_fraction:
            return
        recording = record_episodes(
            self.simulator,
            config.curriculum_demonstrations,
            action_noise,
            self.seed,
            keep_states=True,
        )
        self.curriculum.begin([e.states for e in recording.episodes if e.states is not None])

    def draw(self, keys: Sequence[Key], env_ids: Tensor) -> Drawn:
        """Return a start for each key.

        Args:
            keys: of the groups.
            env_ids: environments to prepare initial states in, as many as there are keys.
        """
        config, num = self.config, len(keys)
        self.branches.forget_trail()
        if config.is_plain:
            return Drawn(self._initial(keys, env_ids))
        available = self.branches.snapshot.num_rows if self.branches.snapshot else 0
        num_branches = min(available, round(config.branch_fraction * num))
        num_demonstrated = 0
        if not self.curriculum.is_over:
            wanted = round(config.curriculum_fraction * num)
            num_demonstrated = min(wanted, num - num_branches)
        num_initial = num - num_branches - num_demonstrated
        parts = []
        if num_initial:
            parts.append(self._selected(keys[:num_initial], env_ids[:num_initial]))
        if num_branches and self.branches.snapshot is not None:
            parts.append(self.branches.snapshot.rows(range(num_branches)))
        if num_demonstrated:
            parts.append(self.curriculum.draw(keys[-num_demonstrated:]))
        counts = torch.tensor([num_initial, num_branches, num_demonstrated])
        return Drawn(Snapshot.joined(parts), torch.arange(3).repeat_interleave(counts))

    def note(self) -> None:
        """Note the state of all environments before a decision, where groups may branch off."""
        if self.config.branch_fraction:
            self.branches.note(self.simulator.snapshot())

    def learn(self, rollout: Rollout, key: Key) -> dict[str, float]:
        """Take what became of the groups; `key` decides all randomness. Returns metrics."""
        if self.config.is_plain:
            return {}
        metrics = _metrics(rollout)
        predicted = self._fit(rollout, key, metrics)
        if self.config.branch_fraction:
            scores = uniform_scores(rollout)
            if self.config.branch_at == "divergence" and predicted is not None:
                scores = divergence_scores(rollout, predicted)
            self.branches.choose(rollout, scores, rollout.num_groups, key)
        if self.config.curriculum_fraction:
            success = metrics.get("start_demonstration_success")
            if success is not None:
                self.curriculum.observe(success)
            metrics["curriculum_distance"] = min(1.0, self.curriculum.distance)
        return metrics

    def _fit(self, rollout: Rollout, key: Key, metrics: dict[str, float]) -> Tensor | None:
        """Fit the predictor; return its predictions (N, T), None where there are none."""
        if self.predictor is None:
            return None
        acted = rollout.executed.any(dim=2)
        seen = {name: value.flatten(0, 1) for name, value in rollout.obs.items()}
        features = self._features(seen, rollout.time_passed()[:, :-1].flatten())
        features = features.view(*acted.shape, -1)
        outcome = rollout.outcome.unsqueeze(1).expand(acted.shape)
        usable = acted & torch.isfinite(features).all(dim=2) & torch.isfinite(outcome)
        if not usable.any():
            return None
        metrics["outcome_prediction_error"] = self.predictor.fit(
            features[usable], outcome[usable], key
        )
        return self.predictor.predict(features.nan_to_num())

    def _initial(self, keys: Sequence[Key], env_ids: Tensor) -> Snapshot:
        self.simulator.reset(self.simulator.task.sample(keys), env_ids, keys)
        return self.simulator.snapshot(env_ids)

    def _selected(self, keys: Sequence[Key], env_ids: Tensor) -> Snapshot:
        """Return initial states, drawn by p (1 - p) where that is learned."""
        if self.config.selection == "uniform" or self.predictor is None:
            return self._initial(keys, env_ids)
        candidates = [
            key._replace(member=i) for i in range(self.config.candidates) for key in keys
        ]
        parts, weights, num_envs = [], [], self.simulator.num_envs
        for start in range(0, len(candidates), num_envs):
            batch = candidates[start : start + num_envs]
            ids = torch.arange(len(batch))
            obs = self.simulator.reset(self.simulator.task.sample(batch), ids, batch)
            with torch.no_grad():
                seen = self.policy.perceive(obs)
                likely = self.predictor.predict(self._features(seen, torch.zeros(len(batch))))
            weights.append(likely * (1.0 - likely) + FLOOR)
            parts.append(self.simulator.snapshot(ids))
        weight = torch.cat(weights)
        chance = randomness.uniform("start_selection", candidates, 1).squeeze(1)
        # Efraimidis and Spirakis, "Weighted random sampling with a reservoir", IPL 2006.
        chosen = torch.topk(chance.log() / weight, len(keys)).indices.sort().values
        return Snapshot.joined(parts).rows(chosen)

    @torch.no_grad()
    def _features(self, seen: Mapping[str, Tensor], passed: Tensor) -> Tensor:
        return with_time(self.policy.critic_features(seen), passed)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything that decides later draws, as flat tensors."""
        state: dict[str, Tensor] = {}
        if self.predictor is not None:
            state |= {f"predictor/{k}": v for k, v in self.predictor.state_dict().items()}
        if self.config.branch_fraction:
            state |= {f"branches/{k}": v for k, v in self.branches.state_dict().items()}
        if self.config.curriculum_fraction:
            state |= {f"curriculum/{k}": v for k, v in self.curriculum.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        remaining, engine = dict(state), ""
        if self.config.branch_fraction or self.config.curriculum_fraction:
            engine = self.simulator.snapshot([0]).engine
        if self.predictor is not None:
            self.predictor.load_state_dict(take(remaining, "predictor/"))
        self.branches.load_state_dict(take(remaining, "branches/"), engine)
        if self.config.curriculum_fraction:
            self.curriculum.load_state_dict(take(remaining, "curriculum/"), engine)


def make_starts(
    config: TrainConfig, simulator: Simulator, policy: ChunkPolicy, ranks: Ranks
) -> Starts:
    """Return where the groups of a run start.

    Raises:
        ConfigurationError: there are several ranks, and what starts learn is not shared.
    """
    if ranks.num > 1 and not config.starts.is_plain:
        raise ConfigurationError(
            f"'starts' chooses where groups start, on {ranks.num} ranks",
            expected="starts.selection = uniform, starts.branch_fraction = 0 and "
            "starts.curriculum_fraction = 0",
            remedy="train on one rank; what is learned of starts is not shared between ranks",
        )
    return Starts(config.starts, simulator, policy, config.seed)


def _metrics(rollout: Rollout) -> dict[str, float]:
    """Return the share and the success of each kind of start."""
    if rollout.starts is None:
        return {}
    kind = rollout.starts.repeat_interleave(rollout.group_size)
    metrics = {}
    for index, name in enumerate(START_KINDS):
        chosen = rollout.outcome[kind == index]
        metrics[f"start_{name}_fraction"] = len(chosen) / len(kind)
        if len(chosen):
            metrics[f"start_{name}_success"] = float(chosen.nan_to_num().mean())
    return metrics
