"""Chunk executor: receding horizon over a policy's chunks, in joint targets.

A chunk of K actions is rolled through the pure controller at once, so that at every tick all
joint targets that are still to come are known and can be sent together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.errors import PolicyFileError

Array = npt.NDArray[np.float64]
ControllerState = Mapping[str, Tensor]


class Controller(Protocol):
    """What the executor needs of `controllers.ActionController`; pure and row-independent."""

    def reset(self, joint_position: Tensor) -> ControllerState:
        """Return the state in which the commanded is the measured position (1, J)."""

    def step(self, state: ControllerState, action: Tensor) -> ControllerState:
        """Return the state at the end of the control period that `action` (1, A) fills."""


class ChunkExecutor:
    """Holds the present chunk, how far it is executed, and the controller's state.

    Args:
        contract: chunk size, executed steps and action size.
        controller: turns actions into joint targets.
    """

    def __init__(self, contract: Contract, controller: Controller) -> None:
        self.contract, self.controller = contract, controller
        self._states: list[ControllerState] = []
        self._actions = torch.zeros(0, contract.action_size, dtype=torch.float64)
        self._index = 0
        self.state: ControllerState = {}
        self.last_action = torch.zeros(1, contract.action_size, dtype=torch.float64)

    def start(self, joint_position: Tensor) -> None:
        """Begin an episode at the measured position (1, J) float64 of the commanded joints."""
        self.state = self.controller.reset(joint_position)
        self.last_action = torch.zeros(1, self.contract.action_size, dtype=torch.float64)
        self.abandon()

    def rebase(self, joint_position: Tensor) -> None:
        """Go on from another commanded position (1, J), e.g. after a hold; keep the gripper's."""
        gripper = self.state.get("gripper")
        state = dict(self.controller.reset(joint_position))
        if gripper is not None:
            state["gripper"] = gripper
        self.state = state
        self.abandon()

    def abandon(self) -> None:
        """Drop what is left of the chunk; the next tick needs an inference."""
        self._states, self._index = [], 0

    @property
    def needs_inference(self) -> bool:
        """Whether the executed part of the chunk is used up."""
        return self._index >= min(len(self._states), self.contract.num_executed)

    @property
    def step_in_chunk(self) -> int:
        """Steps of the present chunk executed so far."""
        return self._index

    def load(self, chunk: npt.NDArray[np.floating]) -> None:
        """Take a new chunk (1, K, A) or (K, A); nothing changes if it is not usable.

        Raises:
            PolicyFileError: wrong shape, or numbers that are not finite.
        """
        actions = check_chunk(chunk, self.contract)
        clipped = torch.from_numpy(actions).clamp(-1.0, 1.0)
        states, state = [], self.state
        for action in clipped:
            state = self.controller.step(state, action.unsqueeze(0))
            states.append(state)
        self._states, self._actions, self._index = states, clipped, 0

    def remaining_targets(self) -> Array:
        """Return the joint targets (R, J) of the steps to come, beyond num_executed included."""
        targets = [state["target"][0].numpy() for state in self._states[self._index :]]
        return np.stack(targets) if targets else np.zeros((0, len(self.contract.limits)))

    def remaining_states(self) -> list[ControllerState]:
        """Return the controller's states at the end of the steps to come."""
        return self._states[self._index :]

    def advance(self) -> None:
        """Count the next step as executed."""
        self.state = self._states[self._index]
        self.last_action = self._actions[self._index].unsqueeze(0)
        self._index += 1


def check_chunk(chunk: npt.NDArray[np.floating], contract: Contract) -> Array:
    """Return a policy's chunk as (K, A) float64.

    Args:
        chunk: (1, K, A) or (K, A).
        contract: gives K and A.

    Raises:
        PolicyFileError: wrong shape, or numbers that are not finite.
    """
    expected = (contract.chunk_size, contract.action_size)
    actions = np.asarray(chunk, dtype=np.float64)
    if actions.shape == (1, *expected):
        actions = actions[0]
    if actions.shape != expected:
        raise PolicyFileError(
            f"the policy gave a chunk of shape {np.shape(chunk)}", expected=f"{(1, *expected)}"
        )
    if not np.isfinite(actions).all():
        raise PolicyFileError("the policy gave a chunk that is not finite")
    return actions
