"""Observed images: frames per second on the simulator's threads, every scene drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bench.timing import interleave
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.observed_images import ObservedImages
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.tasks.reach import Reach, ReachConfig

Row = tuple[str, str, str]
SIZES, THREADS = (64, 96), (1, 2)


def observed(num_images: int = 256, rounds: int = 9) -> Iterator[Row]:
    """Time images of initial states: reach from `top`, pick_place from `overview`."""
    contenders: dict[str, Callable[[], object]] = {}
    opened: list[ObservedImages] = []
    for task, camera in ((Reach(ReachConfig()), "top"), (PickPlace(), "overview")):
        simulator, qpos, mocap = _states(task, num_images)
        for size in SIZES:
            for threads in THREADS:
                images = ObservedImages(simulator.model, size, size, threads)
                opened.append(images)
                name = f"{task.name}, {camera}, {size} x {size}, {threads} threads"
                contenders[name] = _draw(images, qpos, mocap, camera)
        simulator.close()
    for name, timing in interleave(contenders, rounds).items():
        low, high = num_images / timing.seconds.max(), num_images / timing.seconds.min()
        rate = num_images / timing.median
        yield name, f"{rate:,.0f} frames/s", f"{low:,.0f} to {high:,.0f}"
    for images in opened:
        images.close()


def _states(task: Task, num: int) -> tuple[MujocoSimulator, np.ndarray, np.ndarray]:
    """Return a simulator, and positions (n, nq) and marks (n, M, 7) of initial states."""
    simulator = MujocoSimulator(task, num)
    layout, scene = simulator.physics._layout, task.sample([Key(1, 0, i) for i in range(num)])
    qpos = layout.start(scene, simulator.model)[:, layout.qpos].numpy()
    marks = [pose for name, pose in scene.poses.items() if name in ("marker", "goal")]
    return simulator, qpos, np.stack([mark.numpy() for mark in marks], axis=1)


def _draw(
    images: ObservedImages, qpos: np.ndarray, mocap: np.ndarray, camera: str
) -> Callable[[], object]:
    def draw() -> None:
        images.forget()
        images.render(qpos, mocap, camera)

    return draw
