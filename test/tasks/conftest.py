"""What the tests of tasks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.base import Task
from grpo_ros.training.evaluation import held_out_keys


@pytest.fixture
def demonstrated() -> Callable[..., float]:
    """Return a function that runs a task's demonstrator and returns how often it succeeds."""

    def run(task: Task, noise: float = 0.0, episodes: int = 128) -> float:
        """`noise` is on the four components of the executed motion."""
        simulator = MujocoSimulator(task, episodes)
        keys = held_out_keys(episodes)
        simulator.reset(task.sample(keys), None, keys)
        source = torch.Generator().manual_seed(0)
        for _ in range(task.horizon):
            action = task.demonstrate(simulator.scene(), simulator.controller_state())
            if noise:
                drawn = torch.randn(episodes, 4, generator=source, dtype=torch.float64)
                action[:, :4] += noise * drawn
            result = simulator.step(action.unsqueeze(1).float())
        simulator.close()
        return float(result.outcome.float().mean())

    return run
