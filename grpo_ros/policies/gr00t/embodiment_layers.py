"""keep_embodiment: of layers that have weights for every embodiment, only one robot's are kept."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class EmbodimentLinear(nn.Linear):
    """The layer of one embodiment, called as LeRobot's CategorySpecificLinear is.

    That layer gathers inputs x outputs weights for every row it is given, keeps them for the
    gradient, and learns, or decays, the weights of robots that are not there.
    """

    def forward(self, x: Tensor, _embodiments: Tensor) -> Tensor:  # type: ignore[override]
        """Return x W + b (N, T, outputs) of x (N, T, inputs)."""
        return super().forward(x)


def keep_embodiment(head: Any, embodiment_id: int) -> None:
    """Replace the encoders' and the decoder's layers by those of one embodiment, in place.

    Args:
        head: LeRobot's GR00TN17ActionHead.
        embodiment_id: of the robot.
    """
    for part in (head.state_encoder, head.action_encoder, head.action_decoder):
        for name, layer in list(part.named_children()):
            if hasattr(layer, "num_categories"):
                setattr(part, name, _layer_of(layer, embodiment_id))


def _layer_of(layer: Any, embodiment_id: int) -> EmbodimentLinear:
    """Return a copy of one embodiment's layer, where and as precise as the layer is."""
    weight, bias = layer.W.detach()[embodiment_id], layer.b.detach()[embodiment_id]
    inputs, outputs = weight.shape
    kept = EmbodimentLinear(inputs, outputs, device="meta")  # draws no numbers
    kept.weight = nn.Parameter(weight.T.contiguous(), requires_grad=layer.W.requires_grad)
    kept.bias = nn.Parameter(bias.clone(), requires_grad=layer.b.requires_grad)
    return kept
