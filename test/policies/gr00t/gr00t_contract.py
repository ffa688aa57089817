"""The contract of a robot that the tiny checkpoint fits, and what such a robot observes."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.contract import ActionField, Contract, ObservationField, Source

JOINTS = ("a", "b", "c")
INSTRUCTION = "Pick up the red cube!"
STATES = ("arm=angles", "gripper=finger")
SIZE = 64


def make_contract(chunk_size: int = 4) -> Contract:
    """Return one with a field more than the checkpoint looks at, and its actions swapped."""
    image = {"dtype": "uint8"}
    return Contract(
        task="lift",
        instruction=INSTRUCTION,
        embodiment="arm",
        robot_sha256="ab" * 32,
        observation=(
            ObservationField("finger", (1,), Source("joint_position", ("finger",))),
            ObservationField("cube", (3,), Source("position", ("cube",))),
            ObservationField("angles", (3,), Source("joint_position", JOINTS)),
            ObservationField(
                "wrist_image", (SIZE, SIZE, 3), Source("camera", ("wrist",)), **image
            ),
            ObservationField(
                "front_image", (SIZE, SIZE, 3), Source("camera", ("front",)), **image
            ),
        ),
        action=(
            ActionField("gripper", "gripper", ("finger",), (1.0,)),
            ActionField("arm", "joint_delta", JOINTS, (0.03, 0.04, 0.15)),
        ),
        chunk_size=chunk_size,
        num_executed=chunk_size,
    )


def observe(num: int, seed: int = 0) -> dict[str, Tensor]:
    """Return N observations."""
    generator = torch.Generator().manual_seed(seed)
    obs = {}
    for field in make_contract().observation:
        shape = (num, *field.shape)
        if field.dtype == "uint8":
            obs[field.name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        else:
            obs[field.name] = torch.rand(shape, generator=generator)
    return obs


def noise_of(num: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return standard normal noise (N, *shape)."""
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed))
