"""Adam's state as flat, named tensors, so that checkpoints need no pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from grpo_ros.distributed.tensors import placed_like
from grpo_ros.errors import CheckpointError

ENTRIES = ("step", "exp_avg", "exp_avg_sq")


def adam_state(
    optimizer: torch.optim.Optimizer, parameters: Sequence[tuple[str, nn.Parameter]]
) -> dict[str, Tensor]:
    """Return copies of the moments and step counts, `<parameter>/<entry>`; {} before a step."""
    state = {}
    for name, parameter in parameters:
        for entry, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}/{entry}"] = value.detach().clone()
    return state


def load_adam_state(
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[tuple[str, nn.Parameter]],
    state: Mapping[str, Tensor],
) -> None:
    """Put back what `adam_state` returned.

    Raises:
        CheckpointError: an entry is missing, of another shape, or of no known parameter.
    """
    remaining = dict(state)
    for name, parameter in parameters:
        found = {e: remaining.pop(key) for e in ENTRIES if (key := f"{name}/{e}") in remaining}
        optimizer.state.pop(parameter, None)
        if not found:
            continue
        for entry in ENTRIES:
            shape = torch.Size([]) if entry == "step" else parameter.shape
            if entry not in found or found[entry].shape != shape:
                raise CheckpointError(
                    f"optimiser state '{name}/{entry}' is "
                    + (f"{tuple(found[entry].shape)}" if entry in found else "missing"),
                    expected=f"a tensor of shape {tuple(shape)}",
                    remedy="resume with the policy that the checkpoint was made with",
                )
        placed = {entry: value.clone().to(parameter.device) for entry, value in found.items()}
        optimizer.state[parameter] = {
            entry: value if entry == "step" else placed_like(value, parameter.detach())
            for entry, value in placed.items()
        }
    if remaining:
        raise CheckpointError(
            f"optimiser state of unknown parameters {sorted(remaining)}",
            remedy="resume with the policy that the checkpoint was made with",
        )
