"""ActionHead: GR00T's flow head on the backbone's features, for one embodiment."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from grpo_ros.policies.gr00t.embodiment_layers import keep_embodiment
from grpo_ros.policies.gr00t.recomputing import recompute


class ActionHead(nn.Module):
    """The velocity of a noisy chunk: the checkpoint's own modules, without its sampling loop.

    Args:
        head: LeRobot's GR00TN17ActionHead, which is taken over; other robots' layers are let go.
        is_image: (L,) bool, which tokens of the prompt are an image's.
        embodiment_id: of the robot.

    Attributes:
        shape: (H, D) of a chunk. state_size: of a padded state.
        time_exponents: alpha, beta and scale of the times at which it was trained.
    """

    embodiment: Tensor
    is_image: Tensor

    def __init__(self, head: Any, is_image: Tensor, embodiment_id: int) -> None:
        super().__init__()
        keep_embodiment(head, embodiment_id)
        self.head = head
        self.shape: tuple[int, int] = (head.action_horizon, head.action_dim)
        self.state_size: int = head.config.max_state_dim
        self.time_exponents = (
            float(head._noise_beta_alpha),
            float(head._noise_beta_beta),
            float(head.config.noise_s),
        )
        device = is_image.device
        embodiment = torch.tensor([embodiment_id], device=device)
        self.register_buffer("embodiment", embodiment, persistent=False)
        self.register_buffer("is_image", is_image[None], persistent=False)

    def recompute(self) -> None:
        """From now on compute every block again for its gradient; see `recomputing`."""
        recompute(self.head.model.transformer_blocks)
        recompute(getattr(self.head.vl_self_attention, "transformer_blocks", ()))

    def context(self, features: Tensor) -> Tensor:
        """Return what the diffusion transformer attends to (N, L, D)."""
        attended: Tensor = self.head.vl_self_attention(self.head.vlln(features))
        return attended

    def encode_state(self, state: Tensor) -> Tensor:
        """Return the token (N, 1, E) of a normalised state (N, S), S up to `state_size`."""
        padded = F.pad(state, (0, self.state_size - state.shape[1])).unsqueeze(1)
        token: Tensor = self.head.state_encoder(padded, self.embodiment)
        return token

    def velocity(self, x: Tensor, t: Tensor, context: Tensor, state_token: Tensor) -> Tensor:
        """Return v (N, H, D) of chunks x (N, H, D) at times t (N,) in [0, 1)."""
        head = self.head
        step = (t * head.num_timestep_buckets).long()
        tokens = head.action_encoder(x, step, self.embodiment)
        if head.config.add_pos_embed:
            place = torch.arange(self.shape[0], device=x.device)
            tokens = tokens + head.position_embedding(place).unsqueeze(0)
        tokens = torch.cat((state_token, tokens), dim=1)
        masks: dict[str, Tensor] = {}
        if head.config.use_alternate_vl_dit:
            is_image = self.is_image.expand(x.shape[0], -1)
            masks = {"image_mask": is_image, "backbone_attention_mask": torch.ones_like(is_image)}
        mixed = head.model(
            hidden_states=tokens, encoder_hidden_states=context, timestep=step, **masks
        )
        decoded: Tensor = head.action_decoder(mixed, self.embodiment)
        return decoded[:, -self.shape[0] :]
