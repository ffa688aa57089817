"""Chunk executor: receding horizon over a policy's chunks, in joint targets or twists.

A chunk of K actions is rolled through the pure controller at once, so that at every tick all
targets that are still to come are known and can be sent together. How the new chunk takes over
from what is left of the old one is a choice: see `ExecutionConfig.seam`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError, PolicyFileError

Array = npt.NDArray[np.float64]
ControllerState = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """How chunks are executed."""

    num_executed: int = typed.setting(
        0, "Actions executed before the next chunk; 0: what the contract says", minimum=0
    )
    lead_periods: int = typed.setting(
        0, "Ask for the next chunk so many periods before it is due", minimum=0
    )
    seam: Literal["replace", "ensemble", "blend"] = typed.setting(
        "replace",
        "replace: the new chunk alone. ensemble: mean over all chunks that foresaw a step. "
        "blend: from the old chunk to the new one over the steps that both foresaw",
    )
    ensemble_decay: float = typed.setting(
        0.1, "Weight exp(-decay i) of the i-th oldest chunk in an ensemble", minimum=0.0
    )


class Controller(Protocol):
    """What the executor needs of `controllers.ActionController`; pure and row-independent."""

    def reset(self, joint_position: Tensor) -> ControllerState:
        """Return the state in which the commanded is the measured position (1, J)."""

    def step(self, state: ControllerState, action: Tensor) -> ControllerState:
        """Return the state at the end of the control period that `action` (1, A) fills."""

    def twist(self, state: ControllerState, action: Tensor) -> Tensor | None:
        """Return the twist (1, 2) of that period, m/s and rad/s; None without a twist action."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One control period to come: the action, and the controller's state at its end."""

    action: Tensor
    state: ControllerState
    twist: Tensor | None


class ChunkExecutor:
    """Holds the present chunk, how far it is executed, and the controller's state.

    Args:
        contract: chunk size, executed steps and action size.
        controller: turns actions into joint targets.
        config: when a chunk is asked for, and how it takes over.

    Raises:
        ContractError: more steps are to be executed than a chunk has.
    """

    def __init__(
        self,
        contract: Contract,
        controller: Controller,
        config: ExecutionConfig | None = None,
    ) -> None:
        self.contract, self.controller = contract, controller
        self.config = config or ExecutionConfig()
        self.num_executed = self.config.num_executed or contract.num_executed
        self.lead = self.config.lead_periods
        if contract.execution == "async":
            self.lead = max(self.lead, contract.delay_periods)
        is_whole = self.num_executed <= contract.chunk_size
        if not is_whole or self.lead > self.num_executed:
            raise ContractError(
                f"num_executed {self.num_executed} and lead_periods {self.lead}",
                expected=f"num_executed within a chunk of {contract.chunk_size} actions, and "
                "lead_periods no more than num_executed",
            )
        self.now = 0
        """Periods since the start; an action's place in time."""
        self._steps: list[Step] = []
        self._foreseen: list[tuple[int, Tensor]] = []
        self._index = self._num_since_load = 0
        self.state: ControllerState = {}
        self.last_action = self._no_action()

    def start(self, joint_position: Tensor) -> None:
        """Begin an episode at the measured position (1, J) float64 of the commanded joints."""
        self.state = self.controller.reset(joint_position)
        self.last_action = self._no_action()
        self.now = 0
        self.abandon()

    def rebase(self, joint_position: Tensor, joint_velocity: Tensor) -> None:
        """Go on from what is commanded in truth, e.g. after a hold; keep the gripper's command.

        Args:
            joint_position: (1, J) rad or m. joint_velocity: (1, J) per second of the contract.
        """
        gripper = self.state.get("gripper")
        state = dict(self.controller.reset(joint_position))
        if gripper is not None:
            state["gripper"] = gripper
        if "velocity" in state:
            state["velocity"] = joint_velocity
        self.state = state
        self.abandon()

    def abandon(self) -> None:
        """Drop what is left of all chunks; the next tick needs an inference."""
        self._steps, self._foreseen, self._index, self._num_since_load = [], [], 0, 0

    # ---------------------------------------------------------------- chunks

    @property
    def has_next(self) -> bool:
        """Whether there is a step to execute, be it one beyond `num_executed`."""
        return self._index < len(self._steps)

    @property
    def needs_inference(self) -> bool:
        """Whether the executed part of the chunk is used up."""
        return not self.has_next or self._num_since_load >= self.num_executed

    @property
    def wants_inference(self) -> bool:
        """Whether it is time to ask for the next chunk."""
        is_near = self._num_since_load + self.lead >= self.num_executed
        return self.needs_inference or is_near

    def load(self, chunk: npt.NDArray[np.floating], decided_at: int | None = None) -> None:
        """Take a new chunk (1, K, A) or (K, A); nothing changes if it is not usable.

        Args:
            chunk: of the policy.
            decided_at: `now` of its observation; actions for periods gone by are passed over.

        Raises:
            PolicyFileError: wrong shape, numbers that are not finite, or all its time gone by.
        """
        start = self.now if decided_at is None else decided_at
        actions = torch.from_numpy(check_chunk(chunk, self.contract)).clamp(-1.0, 1.0)
        if self.now - start >= len(actions):
            raise PolicyFileError(
                f"a chunk came {self.now - start} periods after its observation",
                expected=f"fewer than its {len(actions)} actions",
                remedy="a faster machine, a lower rate, or longer chunks",
            )
        ahead = [(at, old) for at, old in self._foreseen if at + len(old) > self.now]
        foreseen = [*ahead, (start, actions)]
        joined = self._joined(actions[self.now - start :], foreseen)
        steps, state = [], self.state
        for row in joined:
            action = row.unsqueeze(0)
            twist = self.controller.twist(state, action)
            state = self.controller.step(state, action)
            steps.append(Step(action, state, twist))
        self._steps, self._index, self._num_since_load = steps, 0, self.now - start
        self._foreseen = foreseen if self.config.seam == "ensemble" else []

    def remaining(self) -> list[Step]:
        """Return the steps to come, beyond num_executed included."""
        return self._steps[self._index :]

    def remaining_targets(self) -> Array:
        """Return the joint targets (R, J) of the steps to come."""
        targets = [step.state["target"][0].numpy() for step in self.remaining()]
        return np.stack(targets) if targets else np.zeros((0, len(self.contract.limits)))

    def remaining_twists(self) -> Array:
        """Return the twists (R, 2) of the steps to come, of a base."""
        twists = [step.twist for step in self.remaining() if step.twist is not None]
        return torch.cat(twists).numpy()

    def advance(self) -> None:
        """Count the next step as executed."""
        step = self._steps[self._index]
        self.state, self.last_action = step.state, step.action
        self._index += 1
        self.pass_by()

    def pass_by(self) -> None:
        """Let a period pass."""
        self.now += 1
        self._num_since_load += 1

    # ---------------------------------------------------------------- seams

    def _joined(self, actions: Tensor, foreseen: list[tuple[int, Tensor]]) -> Tensor:
        """Return the actions (R, A) to execute, made of the new and of older chunks."""
        if self.config.seam == "ensemble":
            rows = [self._mean_of(foreseen, self.now + row) for row in range(len(actions))]
            return torch.stack(rows)
        old = [step.action[0] for step in self.remaining()][: len(actions)]
        if self.config.seam == "replace" or not old:
            return actions
        joined = actions.clone()
        for row, action in enumerate(old):
            share = (row + 1) / (len(old) + 1)
            joined[row] = share * actions[row] + (1.0 - share) * action
        return joined

    def _mean_of(self, foreseen: list[tuple[int, Tensor]], period: int) -> Tensor:
        """Return the weighted mean (A,) of all chunks' actions for a period, the oldest first.

        Weights exp(-decay i) as in temporal ensembling (Zhao et al., 2023, arXiv:2304.13705).
        """
        rows = [
            actions[period - start]
            for start, actions in foreseen
            if 0 <= period - start < len(actions)
        ]
        weights = torch.exp(-self.config.ensemble_decay * torch.arange(len(rows)).double())
        return (weights[:, None] * torch.stack(rows)).sum(dim=0) / weights.sum()

    def _no_action(self) -> Tensor:
        return torch.zeros(1, self.contract.action_size, dtype=torch.float64)


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
