"""Isaac Lab on Newton: demonstrators, environment steps per second, what restores are worth."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch

from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.isaaclab.config import IsaacLabConfig
from grpo_ros.simulators.measured import measure
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.statistics import wilson_interval

Row = tuple[str, str, str]
NUM_ENVS = {"cpu": (16, 64, 192, 512), "cuda:0": (1024, 4096)}
TASKS = ("pick_place", "insert", "stack", "navigate")
NUM_EPISODES = 256


def newton() -> Iterator[Row]:
    """Run every task's demonstrator, then pick_place in growing batches."""
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    config = IsaacLabConfig(device=device)
    for name in TASKS:
        simulator = make_simulator("isaaclab", make_task(name), NUM_EPISODES, config)
        outcome, _, _ = _demonstrated(simulator)
        simulator.close()
        low, high = wilson_interval(int(outcome.sum()), NUM_EPISODES)
        success = f"{float(outcome.float().mean()):.3f}"
        yield f"{name}: demonstrator, {NUM_EPISODES} episodes", success, f"{low:.3f} to {high:.3f}"
    for num_envs in NUM_ENVS[device]:
        simulator = make_simulator("isaaclab", make_task("pick_place"), num_envs, config)
        measured = measure(simulator)
        _, steps, seconds = _demonstrated(simulator)
        simulator.close()
        rates = torch.tensor(steps) / torch.tensor(seconds)
        spread = f"{float(rates.min()):,.0f} to {float(rates.max()):,.0f}"
        yield f"{device}, N = {num_envs}", f"{float(rates.median()):,.0f} env steps/s", spread
        group = "bit-equal" if measured.bit_equal_group else f"{measured.group_drift:.1e}"
        restore = "exact" if measured.exact_mid_episode else f"{measured.restore_drift:.1e}"
        yield f"{device}, N = {num_envs}: groups; restores", f"{group}; {restore}", ""


def _demonstrated(simulator: Simulator) -> tuple[torch.Tensor, list[float], list[float]]:
    """Return the demonstrator's outcome (N,), and steps and seconds of each fifth of an episode.

    An environment is frozen once its episode is over: what it did not carry out does not count.
    """
    task = simulator.task
    keys = [Key(5, 0, group) for group in range(simulator.num_envs)]
    simulator.reset(task.sample(keys), None, keys)
    steps, seconds, done, began = [], [], 0, time.perf_counter()
    for step in range(1, task.horizon + 1):
        action = task.demonstrate(simulator.scene(), simulator.controller_state())
        result = simulator.step(action.unsqueeze(1).float())
        if not bool(result.executed.any()):
            break
        done += int(result.executed.sum())
        if step % (task.horizon // 5) == 0:
            steps.append(float(done))
            seconds.append(time.perf_counter() - began)
            done, began = 0, time.perf_counter()
    return result.outcome, steps, seconds
