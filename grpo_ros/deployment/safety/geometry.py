"""Where an arm may go: workspace, table, its own links, singular poses, and the tip's speed.

Each watch gives numbers per joint position, above 0 where the arm must not be: one for each face
of the workspace, one for all links above the table, and so on. Where the arm stood when the gate
was opened bounds each of them too, and the bound follows it back: an arm that is switched on
outside its workspace, or folded, can be led back but never further out.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from grpo_ros.robots.chain_frames import ChainFrames, LinkFrames, manipulability_of
from grpo_ros.robots.clearance import LinkClearance
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]
SLACK_M = 1e-6


class Watch(Protocol):
    """One or more geometric limits that are found together.

    Attributes:
        kinds: of its limits; several may be of one kind.
    """

    kinds: tuple[str, ...]

    def excess(self, q: Array, frames: LinkFrames) -> Array:
        """Return by how much (kinds, N) each joint position (A, N) is beyond a limit, SI."""

    def describe(self, kind: str, q: Array, frames: LinkFrames) -> str:
        """Say what is wrong with one joint position (A, 1)."""


class ArmGeometry:
    """All geometric limits of an arm.

    Args:
        robot: its `safety` section says what is watched.
        period_s: T, between two control points.
        tip_speed_m_s: cap of the tip's speed; 0: none.
    """

    def __init__(self, robot: Robot, period_s: float, tip_speed_m_s: float) -> None:
        self.robot, self.period_s, self.tip_speed = robot, period_s, tip_speed_m_s
        self._frames = ChainFrames(robot.chain)
        self.watches: list[Watch] = [watch for watch in _watches(robot, self._frames) if watch]
        self._kinds = [(kind, watch) for watch in self.watches for kind in watch.kinds]
        self._allowed: Array = np.zeros((len(self._kinds), 1))

    @property
    def is_watching(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.watches) or self.tip_speed > 0.0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of all that is watched."""
        found = tuple(dict.fromkeys(kind for kind, _ in self._kinds))
        return (*found, "tip_speed") if self.tip_speed > 0.0 else found

    def open(self, position: Array) -> None:
        """Begin at a position (A,): what is exceeded there may not be exceeded further."""
        q = position[:, None]
        self._allowed = np.maximum(self._excess(q, self._frames.at(q)), 0.0) + SLACK_M

    def take(self, point: Array, tail: Array) -> None:
        """Count a point (A,) with its way to rest (n, A) as sent: the arm has come back so far."""
        self._allowed = self.allowed_after(point[None], tail[:, None])

    def allowed_after(self, points: Array, tails: Array) -> Array:
        """Return by how much each limit may be exceeded, (W, 1), after points with their tails.

        That is as far as the arm goes on its way to rest, so every tail stays free.

        Args:
            points: (P, A) in turn. tails: (n, P, A).
        """
        if not len(points) or not self._is_beyond:
            return self._allowed
        ways = np.concatenate([points[None], tails])
        q = ways.reshape(-1, points.shape[1]).T.copy()
        owner = np.tile(np.arange(len(points)), len(ways))
        return self._tightened(self._excess(q, self._frames.at(q)), owner, len(points))[:, -1:]

    @property
    def _is_beyond(self) -> bool:
        return bool((self._allowed > SLACK_M).any())

    def _tightened(self, excess: Array, owner: npt.NDArray[np.intp], num: int) -> Array:
        """Return what is allowed before each of `num` points and after the last, (W, num + 1).

        Args:
            excess: (W, N) of them and of their tails. owner: (N,) the point of each.
        """
        worst = np.zeros((len(excess), num))
        np.maximum.at(worst.T, owner, excess.T)
        return np.minimum.accumulate(np.hstack([self._allowed, worst + SLACK_M]), axis=1)

    def admissible(
        self,
        start: Array,
        points: Array,
        tails: Array,
        *,
        is_chain: bool,
        allowed: Array | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Return which points (P,) are free, each with its way to rest.

        Positions are one control period apart; where nothing moves, nothing is judged again.

        Args:
            start: (A,) where the arm is; it is not judged.
            points: (P, A). tails: (n, P, A) what follows on each of them.
            is_chain: whether each point follows the one before; else all follow the start.
            allowed: at the start, see `allowed_after`; None: as of the last point taken.
        """
        num = len(points)
        ways = np.concatenate([points[None], tails])
        moving = (ways[1:] != ways[:-1]).any(axis=2)
        q = np.concatenate([start[None], points, tails[moving]]).T.copy()
        frames = self._frames.at(q)
        order = np.arange(num)
        owner = np.concatenate([[0], order, np.nonzero(moving)[1]])
        excess = self._excess(q, frames)
        allowed = self._allowed if allowed is None else allowed
        if is_chain and self._is_beyond:
            allowed = self._tightened(excess[:, 1:], owner[1:], num)[:, owner]
        bad = np.asarray((excess > allowed).any(axis=0))
        bad[0] = False
        if self.tip_speed > 0.0:
            index = num + np.cumsum(moving).reshape(moving.shape)
            followed = np.concatenate([order[None] + 1, index])[:-1][moving]
            origin = np.concatenate([order if is_chain else 0 * order, followed])
            step = frames.tip[:, 1:] - frames.tip[:, origin]
            longest = self.tip_speed * self.period_s
            bad[1:] |= (step * step).sum(axis=0) > longest * longest
        free = np.ones(num, dtype=bool)
        free[owner[bad]] = False
        return free

    def _excess(self, q: Array, frames: LinkFrames) -> Array:
        """Return the excess of every limit but the tip's speed, (W, N)."""
        found = [watch.excess(q, frames) for watch in self.watches]
        return np.concatenate(found) if found else np.zeros((0, q.shape[1]))

    def describe(self, path: Array) -> tuple[str, str]:
        """Return kind and reason of the first limit that a path (L, A) breaks after its start."""
        q = np.ascontiguousarray(path.T)
        frames = self._frames.at(q)
        beyond = (self._excess(q, frames) > self._allowed)[:, 1:]
        if beyond.any():
            row = int(np.argmax(beyond.any(axis=1)))
            kind, watch = self._kinds[row]
            at = q[:, 1 + int(np.argmax(beyond[row]))][:, None]
            return kind, watch.describe(kind, at, self._frames.at(at))
        step = np.diff(frames.tip, axis=1)
        fastest = float(np.sqrt((step * step).sum(axis=0)).max(initial=0.0)) / self.period_s
        return (
            "tip_speed",
            f"the tip would move at {fastest:.3f} m/s, at most {self.tip_speed:.3f}",
        )


def _watches(robot: Robot, frames: ChainFrames) -> list[Watch | None]:
    safety = robot.safety
    is_near = safety.table_height_m is not None or safety.self_clearance_m > 0.0
    return [
        _Workspace(robot) if robot.workspace else None,
        _Clearances(robot) if is_near else None,
        _Singularity(robot, frames) if safety.manipulability > 0.0 else None,
    ]


class _Workspace:
    """How far the tip is beyond each face of its box, m; below, that is at or near the table."""

    kinds: tuple[str, ...] = ("workspace",) * 6

    def __init__(self, robot: Robot) -> None:
        margin = robot.safety.workspace_margin_m
        bounds = [robot.workspace.get(axis, (-np.inf, np.inf)) for axis in ("x", "y", "z")]
        self.lower = np.array([[low - margin] for low, _ in bounds])
        self.upper = np.array([[high + margin] for _, high in bounds])
        table = robot.safety.table_height_m
        if table is not None:
            self.lower[2] = max(self.lower[2, 0], table - robot.safety.tip_below_table_m)

    def excess(self, q: Array, frames: LinkFrames) -> Array:
        return np.concatenate([self.lower - frames.tip, frames.tip - self.upper])

    def describe(self, kind: str, q: Array, frames: LinkFrames) -> str:
        tip = frames.tip[:, 0].round(3).tolist()
        low, high = self.lower[:, 0].round(3).tolist(), self.upper[:, 0].round(3).tolist()
        return f"the tip would be at {tip} m, outside {low} to {high}"


class _Clearances:
    """How far a link is too low, and two links too near, m."""

    kinds: tuple[str, ...] = ("table", "self_collision")

    def __init__(self, robot: Robot) -> None:
        safety = robot.safety
        self.clearance = LinkClearance(robot)
        self.from_table = safety.table_clearance_m
        self.between = safety.self_clearance_m or -np.inf

    def excess(self, q: Array, frames: LinkFrames) -> Array:
        height, distance = self.clearance.both(q, frames)
        return np.stack([self.from_table - height, self.between - distance])

    def describe(self, kind: str, q: Array, frames: LinkFrames) -> str:
        height, distance = (float(value[0]) for value in self.clearance.both(q, frames))
        if kind == "table":
            return (
                f"{self.clearance.lowest_link(q)} would be {height:.3f} m above the table, "
                f"at least {self.from_table:.3f}"
            )
        return (
            f"{self.clearance.closest_links(q)} would be {distance:.3f} m apart, "
            f"at least {self.between:.3f}"
        )


class _Singularity:
    """How much the manipulability is too small."""

    kinds: tuple[str, ...] = ("singularity",)

    def __init__(self, robot: Robot, frames: ChainFrames) -> None:
        self.frames, self.least = frames, robot.safety.manipulability

    def excess(self, q: Array, frames: LinkFrames) -> Array:
        return (self.least - manipulability_of(self.frames.jacobian(frames)))[None]

    def describe(self, kind: str, q: Array, frames: LinkFrames) -> str:
        value = float(manipulability_of(self.frames.jacobian(frames))[0])
        return f"manipulability would be {value:.4f}, at least {self.least:.4f}: a singular pose"
