"""Where an arm may go: workspace, table, its own links, singular poses, and the tip's speed.

Each watch gives one number per joint position, above 0 where the arm must not be. Where it stood
when the gate was opened bounds each watch too: an arm that is switched on outside its workspace,
or folded, can be led back but never further out.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from grpo_ros.robots.clearance import LinkClearance
from grpo_ros.robots.kinematics import manipulability
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]
SLACK_M = 1e-6


class Watch(Protocol):
    """One geometric limit."""

    kind: str

    def excess(self, q: Array) -> Array:
        """Return by how much (N,) each joint position (A, N) is beyond the limit, SI."""

    def describe(self, q: Array) -> str:
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
        self.watches: list[Watch] = [watch for watch in _watches(robot) if watch is not None]
        self._allowed = np.zeros(len(self.watches))

    @property
    def is_watching(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.watches) or self.tip_speed > 0.0

    def open(self, position: Array) -> None:
        """Begin at a position (A,): what is exceeded there may not be exceeded further."""
        q = position[:, None]
        found = [float(watch.excess(q)[0]) for watch in self.watches]
        self._allowed = np.maximum(np.array(found), 0.0) + SLACK_M

    def admissible(self, paths: Array) -> npt.NDArray[np.bool_]:
        """Return which paths (P,) are free throughout.

        Args:
            paths: (P, L, A) joint positions, one control period apart; the first is where the
                arm is and is not judged.
        """
        num_paths, length, num_joints = paths.shape
        ahead = np.ascontiguousarray(paths[:, 1:].reshape(-1, num_joints).T)
        free = np.ones((num_paths, length - 1), dtype=bool)
        for watch, allowed in zip(self.watches, self._allowed, strict=True):
            free &= (watch.excess(ahead) <= allowed).reshape(num_paths, length - 1)
        if self.tip_speed > 0.0:
            free &= self._speeds(paths) <= self.tip_speed
        return np.asarray(free.all(axis=1))

    def describe(self, path: Array) -> tuple[str, str]:
        """Return kind and reason of the first limit that a path (L, A) breaks."""
        for watch, allowed in zip(self.watches, self._allowed, strict=True):
            beyond = watch.excess(np.ascontiguousarray(path[1:].T)) > allowed
            if beyond.any():
                return watch.kind, watch.describe(path[1 + int(np.argmax(beyond))][:, None])
        fastest = float(self._speeds(path[None]).max(initial=0.0))
        return (
            "tip_speed",
            f"the tip would move at {fastest:.3f} m/s, at most {self.tip_speed:.3f}",
        )

    def _speeds(self, paths: Array) -> Array:
        """Return the tip's speeds (P, L - 1) between successive positions, m/s."""
        num_paths, length, num_joints = paths.shape
        q = np.ascontiguousarray(paths.reshape(-1, num_joints).T)
        tips = self.robot.chain.forward_columns(q)[0].reshape(3, num_paths, length)
        step = np.diff(tips, axis=2)
        return np.asarray(np.sqrt((step * step).sum(axis=0)) / self.period_s)


def _watches(robot: Robot) -> list[Watch | None]:
    safety = robot.safety
    clearance = LinkClearance(robot)
    return [
        _Workspace(robot) if robot.workspace else None,
        _Table(clearance, safety.table_clearance_m) if safety.table_height_m is not None else None,
        _Links(clearance, safety.self_clearance_m) if safety.self_clearance_m > 0.0 else None,
        _Singularity(robot) if safety.manipulability > 0.0 else None,
    ]


class _Workspace:
    """How far the tip is outside its box, m."""

    kind = "workspace"

    def __init__(self, robot: Robot) -> None:
        self.chain, margin = robot.chain, robot.safety.workspace_margin_m
        bounds = [robot.workspace.get(axis, (-np.inf, np.inf)) for axis in ("x", "y", "z")]
        self.lower = np.array([[low - margin] for low, _ in bounds])
        self.upper = np.array([[high + margin] for _, high in bounds])

    def excess(self, q: Array) -> Array:
        tip = self.chain.forward_columns(q)[0]
        return np.asarray(np.maximum(self.lower - tip, tip - self.upper).max(axis=0))

    def describe(self, q: Array) -> str:
        tip = self.chain.forward_columns(q)[0][:, 0]
        low, high = self.lower[:, 0].round(3).tolist(), self.upper[:, 0].round(3).tolist()
        return f"the tip would be at {tip.round(3).tolist()} m, outside {low} to {high}"


class _Table:
    """How far a link is too low, m."""

    kind = "table"

    def __init__(self, clearance: LinkClearance, least_m: float) -> None:
        self.clearance, self.least = clearance, least_m

    def excess(self, q: Array) -> Array:
        return self.least - self.clearance.table(q)

    def describe(self, q: Array) -> str:
        height = float(self.clearance.table(q)[0])
        return f"a link would be {height:.3f} m above the table, at least {self.least:.3f}"


class _Links:
    """How far two links are too near, m."""

    kind = "self_collision"

    def __init__(self, clearance: LinkClearance, least_m: float) -> None:
        self.clearance, self.least = clearance, least_m

    def excess(self, q: Array) -> Array:
        return self.least - self.clearance.between_links(q)

    def describe(self, q: Array) -> str:
        distance = float(self.clearance.between_links(q)[0])
        return (
            f"{self.clearance.closest_links(q)} would be {distance:.3f} m apart, "
            f"at least {self.least:.3f}"
        )


class _Singularity:
    """How much the manipulability is too small."""

    kind = "singularity"

    def __init__(self, robot: Robot) -> None:
        self.chain, self.least = robot.chain, robot.safety.manipulability

    def excess(self, q: Array) -> Array:
        return self.least - manipulability(self.chain.pose(q).jacobian)

    def describe(self, q: Array) -> str:
        value = float(manipulability(self.chain.pose(q).jacobian)[0])
        return f"manipulability would be {value:.4f}, at least {self.least:.4f}: a singular pose"
