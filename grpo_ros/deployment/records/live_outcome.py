"""A task's own predicate on what a robot observes, where that is enough to judge it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.contract import Contract
from grpo_ros.deployment.simulation.simulated_task import task_of
from grpo_ros.errors import GrpoRosError
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState

NANOSECONDS = 1_000_000_000
SPAN_S = 0.1
"""Time over which bodies' velocities are measured."""


class LiveOutcome:
    """Judges scenes by the task that a policy was trained for.

    A predicate that needs a body which nobody observes cannot be judged: `unknown` says so, and
    the outcome is the operator's to tell.

    Args:
        contract: names the task.
        folder: where the policy's run left its configuration, if it did.
        observed: bodies whose poses the contract observes.
    """

    def __init__(self, contract: Contract, folder: Path, observed: Sequence[str]) -> None:
        self.unknown = ""
        self.verdict: bool | None = None
        """What the predicate said last in this run; None where it said nothing."""
        self._task: Task | None = None
        self._before: list[tuple[int, dict[str, Tensor]]] = []
        try:
            task = task_of(contract, folder)
        except GrpoRosError as problem:
            self.unknown = f"the task cannot be made here: {problem}"
            return
        moving = [body.name for body in task.bodies() if body.motion != "static"]
        absent = [name for name in moving if name not in observed]
        if absent:
            self.unknown = f"nobody observes {', '.join(absent)}"
            return
        self._task = task

    def judge(self, scene: SceneState, stamp_ns: int) -> bool | None:
        """Return whether the outcome holds in a scene (1 row); None where it is unknown.

        Bodies' velocities are taken from where they were `SPAN_S` or more ago.
        """
        velocities = self._velocities(scene, stamp_ns)
        if self._task is None or velocities is None:
            return None
        try:
            moving = dataclasses.replace(scene, velocities=velocities)
            self.verdict = bool(self._task.outcome(moving).success[0])
            return self.verdict
        except (KeyError, GrpoRosError) as problem:
            self.unknown = f"the predicate needs what is not observed: {problem}"
            self._task = None
            return None

    def forget(self) -> None:
        """Forget a run."""
        self.verdict, self._before = None, []

    def _velocities(self, scene: SceneState, stamp_ns: int) -> dict[str, Tensor] | None:
        """Return linear over angular velocity (1, 6) of each body; None until that is known."""
        if self._before and stamp_ns < self._before[-1][0]:
            self._before = []
        self._before.append((stamp_ns, dict(scene.poses)))
        old = [entry for entry in self._before if stamp_ns - entry[0] >= SPAN_S * NANOSECONDS]
        if not old:
            return None
        began_ns, poses = old[-1]
        self._before = [entry for entry in self._before if entry[0] >= began_ns]
        seconds = (stamp_ns - began_ns) / NANOSECONDS
        return {
            name: _velocity(poses[name], pose, seconds)
            for name, pose in scene.poses.items()
            if name in poses
        }


def _velocity(before: Tensor, after: Tensor, seconds: float) -> Tensor:
    """Return the mean velocity (1, 6) between two poses (1, 7), m/s over rad/s."""
    linear = (after[:, :3] - before[:, :3]) / seconds
    turned = rotations.product(after[:, 3:], rotations.conjugate(before[:, 3:]))
    turn, real = turned[:, :3], turned[:, 3]
    sine = torch.linalg.vector_norm(turn, dim=-1)
    angle = 2.0 * torch.atan2(sine, real.abs()) * torch.sign(real)
    angular = turn * (angle / sine.clamp(min=1e-12) / seconds)[:, None]
    return torch.cat([linear, angular], dim=-1)
