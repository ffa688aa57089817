"""Failure: one rollout that failed, as all that is needed to live through it again."""

from __future__ import annotations

import dataclasses
import re

from torch import Tensor

from grpo_ros.errors import ReplayError
from grpo_ros.simulators.snapshot import Snapshot

HELD_OUT = "heldout"


@dataclasses.dataclass(frozen=True, order=True)
class FailureId:
    """Names a rollout of a run: its noise's key, or the number of a held-out initial state.

    Attributes:
        iteration, group, member: of a rollout that was trained on.
        held_out: number of a held-out initial state; None: a rollout of training.
    """

    iteration: int = 0
    group: int = 0
    member: int = 0
    held_out: int | None = None

    @classmethod
    def parsed(cls, text: str) -> FailureId:
        """Return the ID that a text names.

        Raises:
            ReplayError: it names none.
        """
        if match := re.fullmatch(r"(\d+)/(\d+)/(\d+)", text):
            return cls(*(int(part) for part in match.groups()))
        if match := re.fullmatch(rf"{HELD_OUT}/(\d+)", text):
            return cls(held_out=int(match[1]))
        raise ReplayError(
            f"rollout '{text}'",
            expected=f"iteration/group/member, as 12/3/5, or {HELD_OUT}/number",
            remedy="`grpo-ros replay` without an ID lists those that failed",
        )

    def __str__(self) -> str:
        if self.held_out is not None:
            return f"{HELD_OUT}/{self.held_out}"
        return f"{self.iteration}/{self.group}/{self.member}"


@dataclasses.dataclass(frozen=True)
class Failure:
    """A rollout from a state, with the actions that were taken.

    Attributes:
        id: its name.
        start: the state it started in, one row.
        chunks: (T, K, A) float32, the actions of each decision.
        executed: (T, K) bool, which were carried out.
        score: partial credit, in [0, 1].
        group_success: share of its group that succeeded.
        final_hash: of the state it ended in.
    """

    id: FailureId
    start: Snapshot
    chunks: Tensor
    executed: Tensor
    score: float
    group_success: float
    final_hash: str

    @property
    def num_steps(self) -> int:
        """Control periods that were carried out."""
        return int(self.executed.sum())
