"""Reading assembler: from a reading of a robot's inputs to all that its policy takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.deployment.observation_buffer import Reading
from grpo_ros.observations import ObservationAssembler
from grpo_ros.robots.robot import Robot


class ReadingAssembler:
    """Computes the whole observation of one robot, images included.

    Args:
        contract: what the policy observes.
        robot: whose kinematics give the tip.

    Raises:
        ContractError: a field's source is of a kind that this version does not assemble.
    """

    def __init__(self, contract: Contract, robot: Robot) -> None:
        self._names = [field.name for field in contract.observation]
        self._assemble = ObservationAssembler(contract, robot, has_images=True)

    def __call__(
        self, reading: Reading, controller_state: Mapping[str, Tensor], last_action: Tensor
    ) -> dict[str, npt.NDArray[Any]]:
        """Return field -> (1, *shape) float32 or uint8, in the contract's order.

        Args:
            reading: what was measured.
            controller_state: the controller's state, one row.
            last_action: (1, A) the action executed last, zeros at the start of an episode.
        """
        state = self._assemble(reading.scene, controller_state, last_action)
        arrays = {name: value.numpy() for name, value in state.items()}
        return {
            name: arrays[name] if name in arrays else reading.images[name] for name in self._names
        }
