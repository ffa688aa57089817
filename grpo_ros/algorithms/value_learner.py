"""ValueLearner: fits a critic to returns, beside the policy's update and apart from it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.algorithms.adam_state import adam_state, load_adam_state
from grpo_ros.algorithms.batch import minibatches, own_rows
from grpo_ros.algorithms.gradients import clip_gradients
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.distributed.summed_gradients import SummedGradients
from grpo_ros.errors import CheckpointError, TrainingError
from grpo_ros.policies.critic import Critic
from grpo_ros.policies.mlp import Activation


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """Settings of the critic and of its regression."""

    hidden: tuple[int, ...] = typed.setting(
        (128, 128),
        "Widths of the hidden layers; three of 2048 make 8 M parameters",
        minimum=1,
    )
    activation: Activation = typed.setting("silu", "What follows each hidden layer")
    learning_rate: float = typed.setting(1e-3, "Adam's learning rate", minimum=0.0, maximum=1.0)
    num_epochs: int = typed.setting(8, "Passes over each rollout", minimum=1, maximum=100)
    minibatch_size: int = typed.setting(1024, "Decisions per gradient step", minimum=1)
    clip: float = typed.setting(
        0.2, "Farthest that an estimate may gain from moving in an update; 0 = any", minimum=0.0
    )
    maximum_grad_norm: float = typed.setting(1.0, "Gradients are scaled to this", minimum=0.0)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Return the loss of each estimate, same shape.

    (V - R)^2, or with clip c > 0 max((V - R)^2, (V_old + clamp(V - V_old, -c, c) - R)^2), as in
    OpenAI's PPO2: what moved more than c gains nothing by moving on.
    """
    loss = (values - returns).square()
    if clip <= 0.0:
        return loss
    held = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum(loss, (held - returns).square())


class ValueLearner:
    """Adam on the critic alone: its step size does not follow the policy's divergence."""

    def __init__(self, config: CriticConfig, critic: Critic, ranks: Ranks = ONE_RANK) -> None:
        """Take the critic whose parameters are changed in place, the same on all ranks."""
        self.config, self.critic, self.ranks = config, critic, ranks
        self.gradients = SummedGradients(critic, ranks)
        self.parameters = list(critic.named_parameters())
        self.optimizer = torch.optim.Adam(critic.parameters(), lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def estimate(self, features: Tensor) -> Tensor:
        """Return the values (*B,) of normalised features (*B, O)."""
        values: Tensor = self.critic(features)
        return values

    def fit(
        self, features: Tensor, old_values: Tensor, returns: Tensor, generator: torch.Generator
    ) -> dict[str, float]:
        """Run all epochs over all ranks' decisions, B of them here; returns metrics by name.

        Args:
            features: (B, O) normalised.
            old_values: (B,) estimates before this update.
            returns: (B,) targets.
            generator: on the CPU; decides the order of minibatches.

        Raises:
            TrainingError: the loss is not finite, or a weight after the last step.
        """
        config, losses = self.config, []
        parameters = [p for _, p in self.parameters]
        span = self.ranks.span(len(features))
        every = torch.ones(span.total, dtype=torch.bool)
        for _ in range(config.num_epochs):
            for index in minibatches(every, config.minibatch_size, generator):
                own = own_rows(index, span)
                loss = self._loss(features, old_values, returns, own) * (len(own) / len(index))
                self.optimizer.zero_grad(set_to_none=True)
                self.gradients.backward(loss)
                clip_gradients(parameters, config.maximum_grad_norm)
                self.optimizer.step()
                losses.append(loss.detach())
        mean_loss = float(self.ranks.sum(torch.stack(losses)).mean())
        # What the last step spoils no loss has seen, and no decision would be valid again.
        if not (math.isfinite(mean_loss) and all(bool(p.isfinite().all()) for p in parameters)):
            raise TrainingError(
                f"the critic is not finite, at a loss of {mean_loss}",
                remedy="lower ppo.critic.learning_rate, or look for extreme rewards",
            )
        return {"value_loss": mean_loss}

    def _loss(self, features: Tensor, old_values: Tensor, returns: Tensor, own: Tensor) -> Tensor:
        """Return the mean loss of some decisions; where there are none, of one that is made up."""
        if len(own):
            features, old_values, returns = features[own], old_values[own], returns[own]
        else:
            features = features.new_zeros(1, features.shape[1])
            old_values = returns = features[:, 0]
        values = self.gradients.compute(lambda: self.critic(features))
        return value_loss(values, old_values, returns, self.config.clip).mean()

    def state_dict(self) -> dict[str, Tensor]:
        """Return critic and optimiser as flat tensors."""
        state = {f"weights/{n}": v.detach().clone() for n, v in self.critic.state_dict().items()}
        moments = adam_state(self.optimizer, self.parameters)
        return {**state, **{f"adam/{name}": value for name, value in moments.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`, bit for bit.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        weights = {k.removeprefix("weights/"): v for k, v in state.items() if k[:2] == "we"}
        moments = {k.removeprefix("adam/"): v for k, v in state.items() if k[:2] != "we"}
        known = {name: value.shape for name, value in self.critic.state_dict().items()}
        if {name: value.shape for name, value in weights.items()} != known:
            raise CheckpointError(
                "the checkpoint's critic has other layers",
                expected=f"{ {name: tuple(shape) for name, shape in known.items()} }",
                remedy="resume with the ppo.critic settings that it was made with",
            )
        self.critic.load_state_dict(weights)
        load_adam_state(self.optimizer, self.parameters, moments)
