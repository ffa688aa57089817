"""Backbone: GR00T's vision-language model for one prompt, over any number of observations.

The instruction and the sizes of the images are fixed, so positions, masks and where image tokens
stand are constants. What is left is a function of the pixels that is batched over observations
and can be exported as it is; the weights and layers are the checkpoint's own (transformers'
Qwen3-VL). The layer that feeds the action head is the last one, before DeepStack adds to it, as
LeRobot's GR00TN17 takes it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn

from grpo_ros.errors import CheckpointError
from grpo_ros.extras import import_extra
from grpo_ros.policies.gr00t.loading import PromptTokens
from grpo_ros.policies.gr00t.recomputing import recompute, recomputed

QWEN = "transformers.models.qwen3_vl.modeling_qwen3_vl"


class VisionTower(nn.Module):
    """Patches of equally large images -> tokens, and what DeepStack adds to them.

    Args:
        visual: transformers' Qwen3VLVisionModel.
        grid: (rows, columns) of patches of an image.

    Attributes:
        is_recomputed: whether its blocks are computed again for their gradients.
    """

    corners: Tensor
    corner_weights: Tensor
    cosines: Tensor
    sines: Tensor

    def __init__(self, visual: Any, grid: tuple[int, int]) -> None:
        super().__init__()
        vision = import_extra("transformers.vision_utils")
        self.visual = visual
        self.is_recomputed = False
        self.deep_layers: tuple[int, ...] = tuple(visual.deepstack_visual_indexes)
        sizes = torch.tensor([[1, *grid]])
        with torch.no_grad():
            index, weight = vision.get_vision_bilinear_indices_and_weights(
                sizes, visual.num_grid_per_side, visual.spatial_merge_size
            )
            device = visual.pos_embed.weight.device
            places = vision.get_vision_position_ids(sizes, visual.spatial_merge_size)
            angles = visual.rotary_pos_emb(places.to(device)).reshape(len(places), -1)
            angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("corners", index.to(device), persistent=False)
        self.register_buffer("corner_weights", weight.to(device)[:, :, None], persistent=False)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, patches: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return tokens (B, M, D) and the same for each DeepStack layer.

        Args:
            patches: (B, P, values) of B images.
        """
        visual = self.visual
        num_images, num_patches = patches.shape[:2]
        x = visual.patch_embed(patches.flatten(0, 1))
        # A place between those of the table is the weighted mean of the four around it.
        positions = (visual.pos_embed(self.corners) * self.corner_weights).sum(0)
        x = x.view(num_images, num_patches, -1) + positions.to(x.dtype)
        deep = []
        for layer, block in enumerate(visual.blocks):
            x = recomputed(self._block, block, x) if self.is_recomputed else self._block(block, x)
            if layer in self.deep_layers:
                merger = visual.deepstack_merger_list[self.deep_layers.index(layer)]
                deep.append(self._merged(merger, x))
        return self._merged(visual.merger, x), deep

    def _block(self, block: Any, x: Tensor) -> Tensor:
        x = x + self._attend(block.attn, block.norm1(x))
        changed: Tensor = x + block.mlp(block.norm2(x))
        return changed

    def _attend(self, attention: Any, x: Tensor) -> Tensor:
        rotate = import_extra(QWEN).apply_rotary_pos_emb_vision
        num_images, num_patches = x.shape[:2]
        parts = attention.qkv(x).view(num_images, num_patches, 3, attention.num_heads, -1)
        query, key, value = parts.unbind(2)
        query, key = rotate(query, key, self.cosines, self.sines)
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        projected: Tensor = attention.proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _merged(self, merger: Any, x: Tensor) -> Tensor:
        merged: Tensor = merger(x.flatten(0, 1))
        num_tokens = x.shape[1] // self.visual.spatial_merge_unit
        return merged.view(x.shape[0], num_tokens, -1)


class Backbone(nn.Module):
    """Patches of an observation's images -> what the action head attends to.

    Args:
        model: LeRobot's GR00TN17; its vision-language model is taken over.
        prompt: what it reads.

    Attributes:
        size: D, of a token's features.
        is_image: (L,) bool, which tokens are an image's.

    Raises:
        CheckpointError: the images do not come to one size.
    """

    input_ids: Tensor
    is_image: Tensor
    image_places: Tensor
    cosines: Tensor
    sines: Tensor
    mask: Tensor

    def __init__(self, model: Any, prompt: PromptTokens) -> None:
        super().__init__()
        grids = set(prompt.grids)
        if len(grids) != 1:
            raise CheckpointError(
                f"the cameras' images come to sizes of {sorted(grids)} patches",
                expected="one size for all",
                remedy="give them one width and height: task.image_size",
            )
        whole = model.backbone.model.model
        language = whole.language_model
        language.config._attn_implementation = "eager"  # whose masks and groups can be exported
        self.vision = VisionTower(whole.visual, grids.pop())
        self.embedding, self.layers = language.embed_tokens, language.layers
        self.size: int = language.config.hidden_size
        device = language.embed_tokens.weight.device
        length = prompt.input_ids.shape[1]
        order = torch.arange(length)
        is_image = prompt.is_image[0]
        rank = torch.cumsum(is_image.long(), 0)
        with torch.no_grad():
            place = self._positions(whole, prompt).to(device)
            cosines, sines = language.rotary_emb(language.embed_tokens.weight[:1], place)
        lowest = torch.finfo(torch.float32).min
        blocked = (order[None, :] > order[:, None]).float() * lowest
        self.register_buffer("input_ids", prompt.input_ids.to(device), persistent=False)
        self.register_buffer("is_image", is_image.to(device), persistent=False)
        image_places = torch.where(is_image, rank - 1, int(rank[-1]))
        self.register_buffer("image_places", image_places.to(device), persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)
        self.register_buffer("mask", blocked[None, None].to(device), persistent=False)

    def recompute(self) -> None:
        """From now on compute every block again for its gradient; see `recomputing`."""
        self.vision.is_recomputed = True
        recompute(self.layers)

    @staticmethod
    def _positions(whole: Any, prompt: PromptTokens) -> Tensor:
        """Return the positions (3, 1, L) that the rotary embedding of the text takes."""
        device = whole.language_model.embed_tokens.weight.device
        grids = torch.tensor([[1, *grid] for grid in prompt.grids], device=device)
        ids = prompt.input_ids.to(device)
        places: Tensor = whole.compute_3d_position_ids(
            input_ids=ids,
            image_grid_thw=grids,
            video_grid_thw=None,
            inputs_embeds=None,
            attention_mask=torch.ones_like(ids),
            past_key_values=None,
            mm_token_type_ids=prompt.is_image.to(device).int(),
        )
        return places[-3:]

    def forward(self, patches: Tensor) -> Tensor:
        """Return features (N, L, D).

        Args:
            patches: (N, V, P, values) of each observation's V images.
        """
        num, num_images = patches.shape[:2]
        seen, deep = self.vision(patches.flatten(0, 1))
        seen = seen.view(num, num_images * seen.shape[1], -1)
        text = self.embedding(self.input_ids).expand(num, -1, -1)
        is_image = self.is_image[None, :, None]
        x = torch.where(is_image, self._placed(seen), text)
        mask = self.mask.to(x.dtype)
        rotary = self.cosines.to(x.dtype), self.sines.to(x.dtype)
        features = x
        for index, layer in enumerate(self.layers):
            features = layer(x, attention_mask=mask, position_embeddings=rotary)
            x = features
            if index < len(deep):
                x = features + self._placed(deep[index].reshape(seen.shape))
        return features

    def _placed(self, seen: Tensor) -> Tensor:
        """Return image tokens (N, V M, D) where they stand in the prompt, 0 elsewhere."""
        padded = F.pad(seen, (0, 0, 0, 1))
        return padded[:, self.image_places]
