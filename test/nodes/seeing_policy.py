"""A policy that sees one image and nothing else, and moves as its pixels say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.tasks.reach import Reach, ReachConfig

IMAGE = "top_image"
SIDE = 8
"""The image is averaged over SIDE x SIDE parts."""
GAIN = 3.0


class SeeingPolicy(nn.Module):
    """A chunk (N, K, A) of tanh(W x), x the mean colours of an image's parts."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.block = contract.chunk_size, contract.action_size
        self.weight = nn.Linear(3 * SIDE * SIDE, self.block[0] * self.block[1])
        with torch.no_grad():
            drawn = torch.randn(
                self.weight.weight.shape, generator=torch.Generator().manual_seed(1)
            )
            self.weight.weight.copy_(GAIN * drawn / SIDE)
            self.weight.bias.zero_()

    def mode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the deployed chunk."""
        pixels = obs[IMAGE].permute(0, 3, 1, 2).float() / 255.0
        parts = nn.functional.avg_pool2d(pixels, pixels.shape[-1] // SIDE).flatten(1)
        return torch.tanh(self.weight(parts)).unflatten(1, self.block)


def export_seeing(path: Path, horizon: int) -> Path:
    """Write a policy of task reach that observes its camera alone; return its path."""
    contract = Reach(ReachConfig(horizon=horizon)).contract()
    contract = dataclasses.replace(contract, observation=(contract.field(IMAGE),))
    export_policy(SeeingPolicy(contract), contract, path)
    return path
