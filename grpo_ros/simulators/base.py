"""The Simulator protocol: batched environments with exact snapshots."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.randomness import Key
from grpo_ros.simulators.snapshot import Snapshot
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState

Watch = Callable[[Callable[[], SceneState], float], None]
"""Takes what makes the first environment's scene, within the call, and the period in s."""

Observation = Mapping[str, Tensor]
"""Contract field name -> (N, *shape); float32 for vectors, uint8 (N, H, W, 3) for images."""


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a backend guarantees; each is proven by the conformance suite, not assumed.

    Attributes:
        exact_mid_episode: a restore in mid-episode continues bit for bit like the original.
        bit_equal_group: environments restored from one row stay bit-equal under equal actions.
        deterministic: results do not depend on threads, batch size or earlier episodes.
        cameras: names of the cameras that `render` knows.
    """

    exact_mid_episode: bool
    bit_equal_group: bool
    deterministic: bool
    cameras: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class StepResult:
    """What K control steps of N environments gave.

    Attributes:
        obs: observation after the chunk (frozen for finished environments).
        final_obs: the observation in which the chunk ended, before anything else changed it;
            the same as `obs`, since a simulator never resets by itself.
        reward_terms: (N, K, R) float32, zero where not executed.
        terminated: (N,) bool, the task ended the episode (success or failure).
        truncated: (N,) bool, the time limit ended it.
        executed: (N, K) bool, which steps of the chunk were carried out.
        outcome: (N,) bool, the verified outcome holds.
        score: (N,) float32 in [0, 1], partial credit; 1 where the outcome holds.
    """

    obs: Observation
    final_obs: Observation
    reward_terms: Tensor
    terminated: Tensor
    truncated: Tensor
    executed: Tensor
    outcome: Tensor
    score: Tensor


EnvIds = Sequence[int] | Tensor | None
"""Environment indices; None means all."""


class Simulator(Protocol):
    """N environments of one task. Finished environments freeze; there is no auto-reset.

    All tensors live on `device`. An environment that was never reset is finished.
    """

    task: Task
    contract: Contract
    device: torch.device
    num_envs: int
    capabilities: Capabilities
    watch: Watch | None
    """Called after each step of the first environment."""

    def reset(
        self, initial: SceneState, env_ids: EnvIds = None, keys: Sequence[Key] | None = None
    ) -> Observation:
        """Start episodes from `initial` (one row per environment); return obs of those rows.

        Args:
            initial: joint positions and object poses; velocities are set to zero.
            env_ids: which environments, in the order of the rows.
            keys: one per row, from which randomised quantities are drawn; needed only where
                randomisation is on.
        """

    def step(self, chunk: Tensor) -> StepResult:
        """Carry out a chunk (N, K, A) float32 of actions in [-1, 1], one per control period."""

    def observe(self) -> Observation:
        """Return the current observation of all environments."""

    def scene(self) -> SceneState:
        """Return the current scene of all environments."""

    def controller_state(self) -> Mapping[str, Tensor]:
        """Return the controllers' state of all environments, by `controllers.ControllerState`."""

    def snapshot(self, env_ids: EnvIds = None) -> Snapshot:
        """Return the complete state of the given environments, one row each."""

    def restore(
        self, snapshot: Snapshot, rows: Sequence[int] | Tensor, env_ids: EnvIds = None
    ) -> Observation:
        """Put row rows[i] of the snapshot into environment env_ids[i]; return obs of those.

        One row in G environments makes a group: G bit-identical copies of one state.
        """

    def render(self, env_ids: EnvIds = None, camera: str = "overview") -> Tensor:
        """Return images (n, H, W, 3) uint8."""

    def close(self) -> None:
        """Release threads, contexts and shared memory; idempotent."""


@contextlib.contextmanager
def unwatched(simulator: Simulator) -> Iterator[None]:
    """Tell nobody what a simulator does meanwhile."""
    watch, simulator.watch = simulator.watch, None
    try:
        yield
    finally:
        simulator.watch = watch
