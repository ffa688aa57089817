"""Randomiser: what differs between environments and stays the same within a group.

Every draw is a function of the environment's key, and is kept in its row, so that a snapshot
restores it. What changes masses, friction and gains is the engine's to apply.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from grpo_ros.errors import SimulatorError
from grpo_ros.randomness import Key, generator
from grpo_ros.simulators.physics import Physics
from grpo_ros.simulators.rows import DELAY, FRICTION, GAIN, MASS, MAX_DELAY, NOISE, Rows
from grpo_ros.tasks.base import Body, Randomisation
from grpo_ros.tasks.scene_state import SceneState


class Randomiser:
    """Draws and applies randomised quantities; does nothing where randomisation is off.

    Args:
        randomisation: what is drawn, from which ranges.
        bodies: of the task; the dynamic ones are seen with noise.
        physics: takes the factors.

    Raises:
        SimulatorError: an action delay is longer than the rows' queue.
    """

    def __init__(
        self, randomisation: Randomisation, bodies: Sequence[Body], physics: Physics
    ) -> None:
        if randomisation.action_delay[1] > MAX_DELAY:
            raise SimulatorError(
                f"randomisation.action_delay {randomisation.action_delay}",
                expected=f"at most {MAX_DELAY} periods",
            )
        self.randomisation, self._physics = randomisation, physics
        self.is_enabled = randomisation.enabled
        self._noisy = [body.name for body in bodies if body.motion == "dynamic"]

    def draw(self, rows: Rows, ids: Tensor, keys: Sequence[Key] | None) -> None:
        """Draw for given environments, one key each, and apply.

        Raises:
            SimulatorError: randomisation is on and keys are missing.
        """
        draws = torch.ones(len(ids), 5, dtype=torch.float64)
        draws[:, DELAY] = draws[:, NOISE] = 0.0
        if self.is_enabled:
            if keys is None or len(keys) != len(ids):
                raise SimulatorError(
                    "reset without keys while randomisation is on", expected="one key per row"
                )
            rows.key[ids] = torch.tensor([list(key) for key in keys], dtype=torch.long)
            for row, key in zip(draws, keys, strict=True):
                source = generator("randomisation", key)
                row[MASS] = source.uniform(*self.randomisation.mass)
                row[FRICTION] = source.uniform(*self.randomisation.friction)
                row[GAIN] = source.uniform(*self.randomisation.gains)
                low, high = self.randomisation.action_delay
                row[DELAY] = source.integers(low, high, endpoint=True)
                row[NOISE] = self.randomisation.observation_noise
        rows.draws[ids] = draws
        self.apply(rows, ids)

    def apply(self, rows: Rows, ids: Tensor) -> None:
        """Let the engine's environments differ by the rows' factors."""
        if self.is_enabled:
            self._physics.set_draws(ids, rows.draws[ids])

    def delayed(self, action: Tensor, rows: Rows, ids: Tensor) -> Tensor:
        """Put actions (n, A) into the rows' queues; return those that take effect now (n, A)."""
        if not self.is_enabled:
            return action
        queue = torch.cat([rows.queue[ids], action.unsqueeze(1)], dim=1)
        rows.queue[ids] = queue[:, 1:]
        delay = rows.draws[ids, DELAY].long()
        return queue[torch.arange(len(ids)), MAX_DELAY - delay]

    def seen(self, scene: SceneState, rows: Rows, ids: Tensor) -> SceneState:
        """Return the scene with noise on object positions and readings, by key and step count."""
        if not self.is_enabled or self.randomisation.observation_noise == 0.0:
            return scene
        scale = rows.draws[ids, NOISE]
        poses, readings = dict(scene.poses), dict(scene.readings)
        if names := self._noisy:
            noise = self._noise("observation_noise", rows, ids, (len(names), 3))
            for i, name in enumerate(names):
                pose = poses[name].clone()
                pose[:, :3] += scale.unsqueeze(1) * noise[:, i]
                poses[name] = pose
        for name, reading in scene.readings.items():
            noise = self._noise(f"reading_noise/{name}", rows, ids, reading.shape[1:])
            readings[name] = reading + scale.view(-1, *[1] * (reading.ndim - 1)) * noise
        return dataclasses.replace(scene, poses=poses, readings=readings)

    def _noise(self, stream: str, rows: Rows, ids: Tensor, shape: Sequence[int]) -> Tensor:
        """Return standard normal noise (n, *shape) of each environment's key and step."""
        draws = []
        keys, steps = rows.key[ids].tolist(), rows.step_count[ids].tolist()
        for (seed, iteration, group, _), step in zip(keys, steps, strict=True):
            source = generator(stream, Key(seed, iteration, group, step))
            draws.append(source.standard_normal(tuple(shape)))
        return torch.from_numpy(np.stack(draws))
