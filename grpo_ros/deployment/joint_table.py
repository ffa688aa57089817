"""Joint table: the last position and velocity of named joints, from messages in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
MAX_ORDERS = 64
"""Orders of names that are remembered: a peer that keeps inventing some must not fill memory."""


class JointTable:
    """Positions and velocities (J,) float64 of the named joints; NaN where not measured.

    Args:
        names: J names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._columns = {name: column for column, name in enumerate(self.names)}
        self._orders: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all values."""
        self.position: Array = np.full(len(self.names), np.nan)
        self.velocity: Array = np.full(len(self.names), np.nan)

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return the columns of names that are here."""
        return [self._columns[name] for name in names]

    def order(self, names: tuple[str, ...]) -> tuple[list[int], list[int]] | None:
        """Return (columns here, columns there) of the joints that are here too.

        None where names repeat.
        """
        order = self._orders.get(names)
        if order is None:
            if len(set(names)) != len(names):
                return None
            sources = [i for i, name in enumerate(names) if name in self._columns]
            order = [self._columns[names[i]] for i in sources], sources
            if len(self._orders) < MAX_ORDERS:
                self._orders[names] = order
        return order
