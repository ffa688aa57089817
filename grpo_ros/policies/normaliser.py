"""Normaliser: zero mean and unit spread per feature, fixed once the demonstrations are known."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract, Statistics
from grpo_ros.errors import TrainingError

STD_FLOOR = 1e-3
"""Smallest divisor: features that never varied must not blow up sensor noise."""
CLAMP = 10.0
"""Normalised features are held to [-CLAMP, CLAMP], so one wild reading stays bounded."""


class Normaliser(nn.Module):
    """z = clamp((x - mean) / max(std, STD_FLOOR), -CLAMP, CLAMP), per component.

    The statistics are buffers: saved with the weights, never trained, constant in the ONNX graph.
    """

    mean: Tensor
    std: Tensor
    minimum: Tensor
    maximum: Tensor

    def __init__(self, num_features: int) -> None:
        """Start as the identity on `num_features` components (apart from the clamp)."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("std", torch.ones(num_features))
        self.register_buffer("minimum", torch.full((num_features,), -torch.inf))
        self.register_buffer("maximum", torch.full((num_features,), torch.inf))

    def fit(self, features: Tensor) -> None:
        """Take mean, standard deviation, minimum and maximum from data (rows, O).

        Raises:
            TrainingError: no rows, another number of components, or a value that is not finite.
        """
        if features.dim() != 2 or features.shape[0] == 0 or features.shape[1] != len(self.mean):
            raise TrainingError(
                f"features to normalise have shape {tuple(features.shape)}",
                expected=f"(rows, {len(self.mean)}) with at least one row",
            )
        bad = ~torch.isfinite(features).all(dim=0)
        if bad.any():
            raise TrainingError(f"features {bad.nonzero().flatten().tolist()} are not finite")
        exact = features.double()
        self.mean.copy_(exact.mean(dim=0))
        self.std.copy_(exact.std(dim=0, correction=0))
        self.minimum.copy_(exact.amin(dim=0))
        self.maximum.copy_(exact.amax(dim=0))

    def forward(self, features: Tensor) -> Tensor:
        """Return normalised features, same shape (..., O)."""
        scaled = (features - self.mean) / self.std.clamp(min=STD_FLOOR)
        return scaled.clamp(-CLAMP, CLAMP)

    def annotate(self, contract: Contract) -> Contract:
        """Return the contract with each float32 field's statistics, once data were seen."""
        if not torch.isfinite(self.minimum).all():
            return contract
        statistics, start = {}, 0
        for field in contract.state_fields:
            part = slice(start, start + field.size * field.history)
            statistics[field.name] = Statistics(
                mean=tuple(self.mean[part].tolist()),
                std=tuple(self.std[part].tolist()),
                minimum=tuple(self.minimum[part].tolist()),
                maximum=tuple(self.maximum[part].tolist()),
            )
            start = part.stop
        fields = tuple(
            dataclasses.replace(field, statistics=statistics.get(field.name, field.statistics))
            for field in contract.observation
        )
        return dataclasses.replace(contract, observation=fields)
