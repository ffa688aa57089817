"""Joint table: the last position and velocity of named joints, from messages in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.inputs.input_refusal import InputRefusal

Array = npt.NDArray[np.float64]
Columns = npt.NDArray[np.int64]
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
        self._orders: dict[tuple[str, ...], tuple[Columns, Columns]] = {}
        self.clear()

    def clear(self) -> None:
        """Forget all values."""
        self.position: Array = np.full(len(self.names), np.nan)
        self.velocity: Array = np.full(len(self.names), np.nan)

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return the columns of names that are here."""
        return [self._columns[name] for name in names]

    def match(
        self, names: tuple[str, ...], position: Array, velocity: Array
    ) -> tuple[Columns, Array, Array]:
        """Return columns here, positions and velocities of the joints that are here too.

        Args:
            names: M names in any order, strangers included.
            position: (M,) rad or m.
            velocity: (M,) or empty: not measured.

        Raises:
            InputRefusal: other numbers of values than of names, names that repeat, or a value of
                a joint here that is not finite.
        """
        if len(position) != len(names) or len(velocity) not in (0, len(names)):
            raise InputRefusal(
                "width",
                f"{len(names)} names, {len(position)} positions, {len(velocity)} velocities",
            )
        columns, sources = self._order(names)
        chosen = position[sources]
        speeds = velocity[sources] if len(velocity) else np.full(len(sources), np.nan)
        if not np.isfinite(chosen).all() or (len(velocity) and not np.isfinite(speeds).all()):
            raise InputRefusal(
                "not_finite",
                f"positions {dict(zip(names, position.tolist(), strict=True))}, velocities "
                f"{velocity.tolist()}",
                expected="finite numbers",
            )
        return columns, chosen, speeds

    def _order(self, names: tuple[str, ...]) -> tuple[Columns, Columns]:
        """Return columns here and columns there of the joints that are here too."""
        order = self._orders.get(names)
        if order is None:
            if len(set(names)) != len(names):
                raise InputRefusal("duplicate", f"names {list(names)} repeat")
            sources = [i for i, name in enumerate(names) if name in self._columns]
            columns = [self._columns[names[i]] for i in sources]
            order = np.array(columns, dtype=np.int64), np.array(sources, dtype=np.int64)
            if len(self._orders) < MAX_ORDERS:
                self._orders[names] = order
        return order
