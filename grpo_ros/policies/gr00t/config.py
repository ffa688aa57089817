"""Settings of the GR00T adapter; importing them needs no package of the extra."""

from __future__ import annotations

import dataclasses
from typing import Literal

from grpo_ros import typed
from grpo_ros.policies.denoising import DenoisingConfig

Trained = Literal["lora", "head", "full"]


@dataclasses.dataclass(frozen=True)
class Gr00tConfig(DenoisingConfig):
    """Settings of Gr00tPolicy.

    The mappings say which of the checkpoint's cameras and groups is what in the contract, e.g.
    `ego_view=overview_image`, `arm=joint_position[0:6]`, `gripper=gripper`; what is not named goes
    by its own name.
    """

    policy_path: str = typed.setting("", "Folder of the checkpoint, in the upstream layout")
    tokenizer_path: str = typed.setting(
        "", "Folder of the backbone's tokenizer; empty: `tokenizer` in the checkpoint's"
    )
    embodiment: str = typed.setting("new_embodiment", "The checkpoint's tag of the robot")
    cameras: tuple[str, ...] = typed.setting((), "Camera of the checkpoint=image of the contract")
    state: tuple[str, ...] = typed.setting((), "State group=field of the contract, or a part")
    action: tuple[str, ...] = typed.setting((), "Action group=field of the contract, or a part")
    trained: Trained = typed.setting(
        "lora",
        "What learns: adapters of low rank in the diffusion transformer, the action head, or all",
    )
    cloned: Literal["same", "lora", "head", "full"] = typed.setting(
        "same", "What behaviour cloning trains before that; same: what learns"
    )
    lora_rank: int = typed.setting(32, "Rank of the adapters", minimum=1)
    lora_alpha: float = typed.setting(
        32.0, "An adapter is scaled by alpha / rank", minimum=0.0, maximum=1e4
    )
    precision: Literal["float32", "bfloat16"] = typed.setting(
        "float32", "Of the weights that are not trained, and of what is computed"
    )
    checkpointing: bool = typed.setting(
        False, "Compute each block of layers again for its gradient instead of keeping it"
    )
    device: str = typed.setting("cpu", "Where the model is: cpu, cuda, cuda:1")

    @property
    def cloned_mode(self) -> Trained:
        """What behaviour cloning trains."""
        return self.trained if self.cloned == "same" else self.cloned
