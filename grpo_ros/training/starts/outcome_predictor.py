"""OutcomePredictor: how likely the present policy succeeds from what it sees."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from grpo_ros.algorithms.value_learner import CriticConfig, ValueLearner
from grpo_ros.policies.critic import Critic
from grpo_ros.randomness import Key, torch_generator

SETTINGS = CriticConfig(hidden=(64, 64), num_epochs=2, minibatch_size=512, clip=0.0)


class OutcomePredictor:
    """A small network fitted to outcomes: every decision of an episode has the episode's own.

    It is fitted to each rollout as it comes and so follows the policy. Least squares on 0 and 1
    estimate the probability.

    Args:
        num_features: F, of a policy's `critic_features`, and the time that has passed.
        seed: decides its first weights.
    """

    def __init__(self, num_features: int, seed: int) -> None:
        generator = torch_generator("outcome_predictor", Key(seed))
        critic = Critic(num_features, SETTINGS.hidden, generator)
        self._learner = ValueLearner(SETTINGS, critic)

    def predict(self, features: Tensor) -> Tensor:
        """Return the probability (*B,) of success for features (*B, F)."""
        return self._learner.estimate(features).clamp(0.0, 1.0)

    def fit(self, features: Tensor, outcome: Tensor, key: Key) -> float:
        """Fit to B decisions; return the mean squared error before.

        Args:
            features: (B, F) normalised. outcome: (B,) in {0, 1}.
            key: decides the order of minibatches.
        """
        before = self._learner.estimate(features)
        error = float((before.clamp(0.0, 1.0) - outcome).square().mean())
        generator = torch_generator("outcome_predictor", key)
        self._learner.fit(features, before, outcome, generator)
        return error

    def state_dict(self) -> dict[str, Tensor]:
        """Return weights and optimiser as flat tensors."""
        return self._learner.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        self._learner.load_state_dict(state)
