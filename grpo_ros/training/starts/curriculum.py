"""Curriculum: start near a demonstration's end, and move back as that is mastered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from grpo_ros import randomness
from grpo_ros.errors import CheckpointError
from grpo_ros.randomness import Key
from grpo_ros.simulators.snapshot import Snapshot


class Curriculum:
    """Exact states along demonstrations, and how far from their ends groups start.

    Starts are drawn evenly between `distance - step` and `distance` of a demonstration before its
    end, over all demonstrations (a reverse curriculum: Florensa et al., 1707.05300; from
    demonstrations: Salimans and Chen, 1812.03381).

    Attributes:
        distance: share of a demonstration that is still to be done from the furthest start.

    Args:
        step: by how much of a demonstration the distance grows.
        success: of an iteration's starts, from which it does.
    """

    def __init__(self, step: float, success: float) -> None:
        self.step, self.success = step, success
        self.distance = step
        self._states: Snapshot | None = None
        self._lengths: list[int] = []

    @property
    def is_over(self) -> bool:
        """Whether the starts have moved back to where episodes start."""
        return self.distance > 1.0 + 1e-9

    def begin(self, episodes: Sequence[Snapshot]) -> None:
        """Take the states of each demonstration, one row per control step, first to last."""
        self._states = Snapshot.joined(episodes)
        self._lengths = [episode.num_rows for episode in episodes]

    def draw(self, keys: Sequence[Key]) -> Snapshot:
        """Return one start per key."""
        assert self._states is not None
        drawn = randomness.uniform("curriculum_start", keys, 2)
        rows, first = [], torch.tensor([0, *self._lengths]).cumsum(0)
        for which, where in drawn.tolist():
            episode = int(which * len(self._lengths))
            before_end = max(0.0, self.distance - self.step * where)
            length = self._lengths[episode]
            step = min(length - 1, max(0, round((1.0 - before_end) * length)))
            rows.append(int(first[episode]) + step)
        return self._states.rows(rows)

    def observe(self, success: float) -> bool:
        """Take the success of an iteration's starts; return whether the starts move back."""
        if success < self.success:
            return False
        self.distance += self.step
        return True

    def state_dict(self) -> dict[str, Tensor]:
        """Return states and progress as flat tensors."""
        states = self._states.tensors() if self._states is not None else {}
        return {
            **{f"states/{name}": value for name, value in states.items()},
            "lengths": torch.tensor(self._lengths, dtype=torch.long),
            "distance": torch.tensor(self.distance, dtype=torch.float64),
        }

    def load_state_dict(self, state: Mapping[str, Tensor], engine: str) -> None:
        """Continue from `state_dict`; `engine` is that of snapshots that name none.

        Raises:
            CheckpointError: something is missing.
        """
        states = {k.removeprefix("states/"): v for k, v in state.items() if k[:7] == "states/"}
        try:
            self.distance = float(state["distance"])
            self._lengths = [int(length) for length in state["lengths"]]
        except KeyError as missing:
            raise CheckpointError(f"the curriculum's state lacks {missing}") from None
        self._states = Snapshot.from_tensors(states, engine) if states else None
