"""A bridge whose simulator also hands out images: those of a fixed pool, nothing is rendered.

Run by `bench.placement` as `python -m bench.image_bridge --config FILE --socket NUMBER`.
"""

from __future__ import annotations

import argparse
import dataclasses
import socket
import sys
from typing import Any

import torch

from grpo_ros import serve
from grpo_ros.configuration import load_config, section
from grpo_ros.simulators.base import Observation, Simulator, StepResult
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.simulators.remote.serving import ServedSimulator
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.settings import TrainConfig

IMAGE = (96, 96, 3)
POOL = 3


class WithImages:
    """A simulator that also observes `image` (N, 96, 96, 3) uint8, a copy each time."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        shape = (POOL, simulator.num_envs, *IMAGE)
        random = torch.Generator().manual_seed(0)
        self._images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulator, name)

    def step(self, chunk: torch.Tensor) -> StepResult:
        """Step, and add the next images to the observation."""
        result = self._simulator.step(chunk)
        obs = self._with_images(result.obs)
        return dataclasses.replace(result, obs=obs, final_obs=obs)

    def observe(self) -> Observation:
        """Return the observation with the next images."""
        return self._with_images(self._simulator.observe())

    def _with_images(self, obs: Observation) -> Observation:
        self._count += 1
        return {**obs, "image": self._images[self._count % POOL].clone()}


def simulator_of(config: TrainConfig, num_envs: int) -> Simulator:
    """Return the configured simulator."""
    task = make_task(config.task, section(config, "task"))
    return make_simulator(config.simulator, task, num_envs, section(config, "simulator"))


def main() -> int:
    """Serve one learner."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--socket", type=int)
    options = parser.parse_args()
    serve.die_with_parent()
    config = load_config([], options.config)

    def make() -> ServedSimulator:
        contract = make_task(config.task, section(config, "task")).contract()
        return ServedSimulator(lambda n: WithImages(simulator_of(config, n)), contract)

    return serve.serve_learner(socket.socket(fileno=options.socket), make)


if __name__ == "__main__":
    sys.exit(main())
