"""Features: what a policy on states sees, as one row of numbers per environment."""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.contract import Contract, ObservationField
from grpo_ros.errors import ContractError, nearest
from grpo_ros.policies.base import Observation


def field_shape(field: ObservationField) -> tuple[int, ...]:
    """Return the shape of one environment's value: shape, or (history, *shape) where stacked."""
    return field.shape if field.history == 1 else (field.history, *field.shape)


def state_features(obs: Observation, contract: Contract) -> Tensor:
    """Return the float32 fields side by side, in the contract's order.

    Args:
        obs: field -> (N, *field_shape).
        contract: names and orders the fields; others in `obs` are not looked at.

    Returns:
        (N, O) float32.

    Raises:
        ContractError: a field is missing from `obs`.
    """
    columns = []
    for field in contract.state_fields:
        if field.name not in obs:
            raise ContractError(
                f"observation lacks field '{field.name}'", remedy=nearest(field.name, obs)
            )
        value = obs[field.name].float()
        columns.append(value.flatten(1) if value.dim() > 1 else value.unsqueeze(1))
    return torch.cat(columns, dim=1)
