"""Critic: a light network that estimates the return of what a policy sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grpo_ros.policies.mlp import Activation, make_mlp


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
