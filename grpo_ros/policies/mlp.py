"""A plain multi-layer perceptron, initialised from an explicit generator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

Activation = Literal["silu", "tanh", "elu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"silu": nn.SiLU, "tanh": nn.Tanh, "elu": nn.ELU}
GAINS: dict[Activation, float] = {"silu": 1.0, "tanh": 5.0 / 3.0, "elu": 1.0}
"""Of the weights before each; what torch recommends for tanh (torch.nn.init.calculate_gain)."""


def make_mlp(
    num_inputs: int,
    hidden: Sequence[int],
    num_outputs: int,
    generator: torch.Generator,
    output_gain: float = 1.0,
    activation: Activation = "silu",
) -> nn.Sequential:
    """Return layers with an activation between them, ending in a Linear; draws from `generator`.

    Weights are uniform in +-gain sqrt(3 / inputs); biases are zero.

    Args:
        num_inputs, hidden, num_outputs: widths.
        generator: decides the weights.
        output_gain: factor on the last layer's weights; small starts near zero output.
        activation: what follows each hidden layer.
    """
    widths = [num_inputs, *hidden, num_outputs]
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        is_last = i == len(widths) - 2
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        bound = math.sqrt(3.0 / fan_in) * (output_gain if is_last else GAINS[activation])
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.zero_()
        layers += [linear] if is_last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)
