"""Trajectory follower: what a joint_trajectory_controller does with positions, linearly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class TrajectoryFollower:
    """Interpolates from the present target through timed points; holds the last one.

    Args:
        position: (J,) where it starts.
    """

    def __init__(self, position: Array) -> None:
        self.reset(position)

    def reset(self, position: Array) -> None:
        """Hold a position (J,) from now on."""
        self._times: list[int] = [0]
        self._points: list[Array] = [np.array(position, dtype=np.float64)]

    def follow(self, now_ns: int, times_ns: Sequence[int], points: Array) -> bool:
        """Replace what is followed; return whether any point is still to come.

        The way begins at the present target; points that are due already are passed over.

        Args:
            now_ns: the present.
            times_ns: (R,) when each point is due, increasing, on the same clock.
            points: (R, J) targets.
        """
        ahead = [row for row, due in enumerate(times_ns) if due > now_ns]
        if not ahead:
            return False
        start = self.sample(now_ns)
        self._times = [now_ns, *(times_ns[row] for row in ahead)]
        self._points = [start, *(np.array(points[row], dtype=np.float64) for row in ahead)]
        return True

    def sample(self, time_ns: int) -> Array:
        """Return the target (J,) at a time."""
        times, points = self._times, self._points
        if time_ns >= times[-1]:
            return points[-1].copy()
        if time_ns <= times[0]:
            return points[0].copy()
        row = next(i for i, due in enumerate(times) if due > time_ns)
        share = (time_ns - times[row - 1]) / (times[row] - times[row - 1])
        return points[row - 1] + share * (points[row] - points[row - 1])

    def is_done(self, time_ns: int) -> bool:
        """Whether the last point is due."""
        return time_ns >= self._times[-1]
