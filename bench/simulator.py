"""The simulator's loop against bare `mujoco.rollout`, and what a snapshot costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import torch
from mujoco import rollout

from bench.timing import interleave
from grpo_ros.randomness import Key, normal
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig

Row = tuple[str, str, str]


def loop(
    num_envs: int = 256, num_threads: int = 2, chunks: int = 8, rounds: int = 15
) -> Iterator[Row]:
    """Time chunks of the full loop and the same physics alone, no environment finished.

    Both run the same states under the same joint targets: the bare contender replays, from the
    same initial states, the controls that the full loop's controller gave.
    """
    task = PickPlace(PickPlaceConfig(horizon=10_000))
    simulator = MujocoSimulator(task, num_envs, MujocoConfig(num_threads=num_threads))
    keys = [Key(1, 0, group) for group in range(num_envs)]
    initial = task.sample(keys)
    chunk_size, size = simulator.contract.chunk_size, simulator.contract.action_size
    actions = 0.5 * normal("bench", keys, (chunks, chunk_size, size))
    simulator.reset(initial, None, keys)
    start = simulator.snapshot()
    controls, states = _recorded(simulator, actions)
    period = simulator.num_substeps
    pool = rollout.Rollout(nthread=num_threads)
    data = [mujoco.MjData(simulator.model) for _ in range(num_threads)]
    out = np.empty((num_envs, period, states[0].shape[1]))
    sensors = np.empty((num_envs, period, 0))

    def full() -> None:
        for i in range(chunks):
            simulator.step(actions[:, i])

    def bare() -> None:
        for state, control in zip(states, controls, strict=True):
            pool.rollout(
                [simulator.model] * num_envs, data, state, control, nstep=period, skip_checks=True,
                state=out, sensordata=sensors, control_spec=mujoco.mjtState.mjSTATE_CTRL.value,
            )  # fmt: skip

    def prepare() -> None:
        simulator.restore(start, range(num_envs))

    timings = interleave({"prepare": prepare, "full": full, "bare": bare}, rounds)
    steps = num_envs * chunks * chunk_size
    assert not bool(simulator.rows.terminated.any()), "an environment finished during the bench"
    ratios = timings["bare"].seconds / timings["full"].seconds
    yield "bare mujoco.rollout", f"{steps / timings['bare'].median:,.0f} env steps/s", ""
    yield "full loop", f"{steps / timings['full'].median:,.0f} env steps/s", ""
    low, high = float(ratios.min()), float(ratios.max())
    yield "full / bare", f"{np.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"
    simulator.close()
    pool.close()


def _recorded(
    simulator: MujocoSimulator, actions: torch.Tensor
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the controls and initial states of every physics call of the full loop."""
    controls, states = [], []
    original = simulator.physics.simulate

    def recording(
        ids: torch.Tensor, physics: torch.Tensor, control: torch.Tensor, placed: torch.Tensor
    ) -> Callable[[], torch.Tensor]:
        controls.append(np.ascontiguousarray(control.numpy()).copy())
        states.append(physics.numpy().copy())
        return original(ids, physics, control, placed)

    simulator.physics.simulate = recording  # type: ignore[method-assign]
    for i in range(actions.shape[1]):
        simulator.step(actions[:, i])
    simulator.physics.simulate = original  # type: ignore[method-assign]
    return controls, states


def snapshot(num_envs: int = 256, rounds: int = 50) -> Iterator[Row]:
    """Time a snapshot of all environments and its restore as groups of 8."""
    task = PickPlace()
    simulator = MujocoSimulator(task, num_envs)
    keys = [Key(1, 0, group) for group in range(num_envs)]
    simulator.reset(task.sample(keys), None, keys)
    rows = torch.arange(num_envs // 8).repeat_interleave(8)

    def both() -> None:
        simulator.restore(simulator.snapshot(), rows)

    timing = interleave({"both": both}, rounds)["both"]
    per_env = timing.median / num_envs * 1e6
    spread = f"p99 {timing.quantile(0.99) / num_envs * 1e6:.2f} us"
    yield "snapshot + restore (with observation)", f"{per_env:.2f} us per environment", spread
    simulator.close()
