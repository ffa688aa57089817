"""Plan: what the controllers decided, handed to physics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the controllers decided for n environments.

    Attributes:
        active: (n,) environment ids. action: (n, A), as executed. state: their next state.
        control: (n, substeps, J), joint targets on the way there.
    """

    active: Tensor
    action: Tensor
    state: Mapping[str, Tensor]
    control: Tensor

    def still(self, active: Tensor) -> Plan:
        """Return the plan of those environments that are active, a subset."""
        if len(active) == len(self.active):
            return self
        kept = torch.isin(self.active, active)
        state = {name: value[kept] for name, value in self.state.items()}
        return Plan(active, self.action[kept], state, self.control[kept])
