"""Critic: a light network that estimates the return of what a policy sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grpo_ros.policies.mlp import Activation, make_mlp


def with_time(features: Tensor, passed: Tensor) -> Tensor:
    """Return features (*B, F + 1) that tell how much of the time limit has passed.

    Where the time limit is the end, what can still be reached depends on what is left of it,
    which a policy need not see (Pardo et al., "Time limits in reinforcement learning", ICML 2018).

    Args:
        features: (*B, F) normalised.
        passed: (*B,) share of the time limit, in [0, 1].
    """
    return torch.cat([features, 2.0 * passed.unsqueeze(-1) - 1.0], dim=-1)


class Critic(nn.Module):
    """V(obs) from normalised features; never deployed, so it may grow as large as it helps.

    Args:
        num_features: O.
        hidden: widths of the hidden layers. activation: what follows each.
        generator: decides the first weights; the first estimates are near 0.
    """

    def __init__(
        self,
        num_features: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.network = make_mlp(num_features, hidden, 1, generator, 0.1, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Return the values (*B,) of normalised features (*B, O)."""
        values: Tensor = self.network(features)
        return values.squeeze(-1)
