"""Perception: what a GR00T makes of an observation before it decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError, nearest
from grpo_ros.policies.gr00t.backbone import Backbone
from grpo_ros.policies.gr00t.images import ImageTransform


class Perception(nn.Module):
    """Images to features of the vision-language model.

    Args:
        transform: from images to patches.
        backbone: from patches to features.
        images: names of the observation's images, in the order of the prompt.
    """

    def __init__(
        self, transform: ImageTransform, backbone: Backbone, images: Sequence[str]
    ) -> None:
        super().__init__()
        self.transform, self.backbone, self.images = transform, backbone, tuple(images)

    def stacked(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return the images (N, V, H, W, 3) uint8 of an observation, where the model is.

        Raises:
            ContractError: an image is missing.
        """
        for name in self.images:
            if name not in obs:
                raise ContractError(f"observation lacks image '{name}'", remedy=nearest(name, obs))
        stacked = torch.stack([obs[name] for name in self.images], dim=1)
        return stacked.to(self.backbone.input_ids.device)

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, L, D) of images (N, V, H, W, 3) uint8."""
        features: Tensor = self.backbone(self.transform(images))
        return features


def seen_of(contract: Contract, names: Sequence[str]) -> Contract:
    """Return the contract with the named observation fields alone: a policy names what it sees."""
    kept = tuple(field for field in contract.observation if field.name in names)
    return dataclasses.replace(contract, observation=kept)
