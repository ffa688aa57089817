"""NoiseNetwork: how widely a flow head explores, learned from what is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from grpo_ros.policies.mlp import make_mlp

HIDDEN = (64, 64)


class NoiseNetwork(nn.Module):
    """Standard deviation of every drawn entry, within bounds, from a policy's features.

    log std = (log low + log high) / 2 + (log high - log low) / 2 tanh(network(features)): the
    bounded log variance of ReinFlow (2505.22094), which pi_RL's Flow-Noise (2510.25889) takes over
    with bounds 0.08 and 0.16. It starts in the middle for whatever it sees: the geometric mean.
    """

    def __init__(
        self,
        num_features: int,
        block: tuple[int, int],
        bounds: tuple[float, float],
        generator: torch.Generator,
        hidden: Sequence[int] = HIDDEN,
    ) -> None:
        """Build the network with weights drawn from `generator`; its last layer's are 0.

        Args:
            num_features: F. block: (K, A) that is drawn. bounds: low, high, positive.
            generator: decides the weights.
            hidden: widths of the hidden layers.
        """
        super().__init__()
        self.block = block
        low, high = (math.log(bound) for bound in bounds)
        self.middle, self.half_range = 0.5 * (low + high), 0.5 * (high - low)
        self.network = make_mlp(num_features, hidden, math.prod(block), generator, output_gain=0.0)

    def forward(self, features: Tensor) -> Tensor:
        """Return std (N, K, A) of normalised features (N, F)."""
        position = torch.tanh(self.network(features)).view(-1, *self.block)
        return (self.middle + self.half_range * position).exp()
