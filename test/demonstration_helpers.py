"""What tests of kept demonstrations share: recordings of two tasks, and how they are compared."""

import functools

import pytest
import torch

from grpo_ros.configuration import load_config, section
from grpo_ros.simulators.mujoco.renderer import rendering_problem
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.registry import make_task
from grpo_ros.training import demonstrations

ORIGIN = demonstrations.Origin("mujoco", 1, 0.1, {"grpo_ros": "test"})


def make_simulator(task="pick_place", num_envs=3, *overrides):
    """Return a simulator of a task with its preset's settings."""
    config = load_config([f"task={task}", *overrides])
    return MujocoSimulator(make_task(task, section(config, "task")), num_envs)


@functools.cache
def recorded(task, episodes=2):
    """Return a recording and the contract that it is for; skip where no camera can be rendered."""
    if task == "reach" and rendering_problem():
        pytest.skip("nothing renders here")
    simulator = make_simulator(task)
    recording = demonstrations.record_episodes(simulator, episodes, 0.1, 1)
    simulator.close()
    return recording, simulator.contract


def assert_equal(first, second):
    """Assert that two recordings are the same, bit for bit."""
    assert len(first.episodes) == len(second.episodes)
    for one, other in zip(first.episodes, second.episodes, strict=True):
        assert set(one.obs) == set(other.obs)
        pairs = [(one.obs[name], other.obs[name]) for name in one.obs]
        pairs += [(one.action, other.action), (one.executed, other.executed)]
        for left, right in pairs:
            assert left.dtype == right.dtype and torch.equal(left, right)
