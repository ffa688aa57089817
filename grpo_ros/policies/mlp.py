"""A plain multi-layer perceptron, initialised from an explicit generator."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn


def make_mlp(
    num_inputs: int,
    hidden: Sequence[int],
    num_outputs: int,
    generator: torch.Generator,
    output_gain: float = 1.0,
) -> nn.Sequential:
    """Return Linear-SiLU layers ending in a Linear; the global random state is not touched.

    Weights are uniform in +-sqrt(3 / inputs) (unit gain); biases are zero.

    Args:
        num_inputs, hidden, num_outputs: widths.
        generator: decides the weights.
        output_gain: factor on the last layer's weights; small starts near zero output.
    """
    widths = [num_inputs, *hidden, num_outputs]
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        is_last = i == len(widths) - 2
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        bound = math.sqrt(3.0 / fan_in) * (output_gain if is_last else 1.0)
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.zero_()
        layers += [linear] if is_last else [linear, nn.SiLU()]
    return nn.Sequential(*layers)
