"""Input stamps: when each input was measured and when it came, and whether that is usable now.

Stamps are integer nanoseconds of the node's clock, arrivals seconds of a clock that nobody sets.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.inputs.required_inputs import NANOSECONDS, Need, RequiredInputs

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
NEVER = -1
"""Stamp of an input that has not come."""


@dataclasses.dataclass(frozen=True)
class NotReady:
    """Why there is no reading: what is missing, stale, skewed or from the future, by name.

    Or why there is one and no run may begin from it: the robot moves.
    """

    kind: Literal["missing", "stale", "skewed", "future", "moving"]
    reason: str


class InputStamps:
    """Stamp and arrival of every input, by the rows of `RequiredInputs.names`.

    Args:
        inputs: names and needs.
        ahead_ns: how far a stamp may be ahead of the clock.
    """

    def __init__(self, inputs: RequiredInputs, ahead_ns: int) -> None:
        self.names, self._ahead_ns = inputs.names, ahead_ns
        self._needs = [(need, np.array(need.rows)) for need in inputs.needs]
        self.clear()

    def clear(self) -> None:
        """Forget every stamp."""
        self._not_before_ns = 0
        self._stamp = np.full(len(self.names), NEVER, dtype=np.int64)
        self._arrival = np.full(len(self.names), np.nan)
        self._is_ahead: Flags = np.zeros(len(self.names), dtype=np.bool_)

    def forget_before(self, stamp_ns: int) -> None:
        """Forget what is older than a stamp and admit no such input from now on."""
        self._not_before_ns = stamp_ns
        is_old = self._stamp < stamp_ns
        self._stamp[is_old] = NEVER
        self._arrival[is_old] = np.nan
        self._is_ahead[is_old] = False

    # ---------------------------------------------------------------- in

    def is_forgotten(self, stamp_ns: int) -> bool:
        """Whether inputs of this stamp do not count any more."""
        return 0 <= stamp_ns < self._not_before_ns

    def is_out_of_order(self, stamp_ns: int, rows: Rows) -> bool:
        """Whether a newer stamp is held; one that `problem` found ahead of the clock is none."""
        held = self._stamp[rows]
        return stamp_ns < max(0, int(held[~self._is_ahead[rows]].max(initial=NEVER)))

    def note(self, stamp_ns: int, rows: Rows, arrival_s: float | None) -> None:
        """Keep stamp and arrival; the same stamp once more is nothing new."""
        new = rows[self._stamp[rows] != stamp_ns]
        self._arrival[new] = np.nan if arrival_s is None else arrival_s
        self._stamp[rows] = stamp_ns
        self._is_ahead[rows] = False

    # ---------------------------------------------------------------- out

    @property
    def has_come(self) -> Flags:
        """Whether each input (M,) is held."""
        has_come: Flags = self._stamp != NEVER
        return has_come

    @property
    def oldest_ns(self) -> int:
        """The oldest stamp of all inputs."""
        return int(self._stamp.min())

    @property
    def newest_ns(self) -> int:
        """The newest stamp of all inputs."""
        return int(self._stamp.max())

    def newest_of(self, num: int) -> int:
        """Return the newest stamp of the first inputs, `NEVER` where none has come.

        Those that `problem` found ahead of the clock do not count.
        """
        return int(self._stamp[:num][~self._is_ahead[:num]].max(initial=NEVER))

    def ages_ns(self, now_ns: int) -> Rows:
        """Return nanoseconds since the stamp of each input (M,), all of which have come."""
        ages: Rows = now_ns - self._stamp
        return ages

    def ages(self, now_ns: int) -> dict[str, float]:
        """Return input -> seconds since its stamp, inf where it has not come."""
        ages = self.ages_ns(now_ns) / NANOSECONDS
        ages[~self.has_come] = np.inf
        return dict(zip(self.names, ages.tolist(), strict=True))

    def problem(
        self, now_ns: int, max_age_s: float | None, steady_s: float | None
    ) -> NotReady | None:
        """Return what keeps the inputs, all of which have come, from being used now.

        Args:
            now_ns: the clock of the stamps.
            max_age_s: overrules the needs' ages where given.
            steady_s: the clock of arrivals; None: those are not looked at.
        """
        self._is_ahead = self._stamp > now_ns + self._ahead_ns
        for need, rows in self._needs:
            limit_ns = need.max_age_ns if max_age_s is None else round(max_age_s * NANOSECONDS)
            problem = self._check(need, rows, now_ns, limit_ns)
            if problem is None and steady_s is not None:
                problem = self._check_arrival(rows, steady_s, limit_ns)
            if problem is not None:
                return problem
        return None

    def _check(self, need: Need, rows: Rows, now_ns: int, limit_ns: int) -> NotReady | None:
        stamps = self._stamp[rows]
        first, last = int(stamps.argmin()), int(stamps.argmax())
        old_name, new_name = self.names[rows[first]], self.names[rows[last]]
        oldest, newest = int(stamps[first]), int(stamps[last])
        age, ahead, skew = now_ns - oldest, newest - now_ns, newest - oldest
        if age > limit_ns:
            return NotReady(
                "stale", f"{old_name} is {_ms(age)} ms old, at most {_ms(limit_ns)} ms"
            )
        if ahead > self._ahead_ns:
            return NotReady(
                "future",
                f"{new_name} is stamped {_ms(ahead)} ms ahead of the clock, "
                f"at most {_ms(self._ahead_ns)} ms",
            )
        if skew > need.max_skew_ns:
            return NotReady(
                "skewed",
                f"{old_name} and {new_name} are {_ms(skew)} ms apart, "
                f"at most {_ms(need.max_skew_ns)} ms",
            )
        return None

    def _check_arrival(self, rows: Rows, steady_s: float, limit_ns: int) -> NotReady | None:
        silence = np.nan_to_num(steady_s - self._arrival[rows])
        longest = int(silence.argmax())
        silent_ns = round(float(silence[longest]) * NANOSECONDS)
        if silent_ns <= limit_ns:
            return None
        return NotReady(
            "stale",
            f"{self.names[rows[longest]]} has brought nothing new for {_ms(silent_ns)} ms, "
            f"at most {_ms(limit_ns)} ms",
        )


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f}".removesuffix(".0")
