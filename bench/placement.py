"""What it costs that the simulator lives in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from bench.image_bridge import WithImages, simulator_of
from bench.timing import interleave
from grpo_ros.configuration import load_config, to_yaml
from grpo_ros.randomness import Key, normal
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.remote.bridge_process import MODULE, BridgeProcess
from grpo_ros.simulators.remote.simulator import RemoteSimulator

Row = tuple[str, str, str]


def separate(
    num_envs: int = 256, num_threads: int = 1, chunks: int = 4, rounds: int = 21
) -> Iterator[Row]:
    """Time chunks of pick_place in this process and in another, in turn, no episode finished.

    Both take the same actions from the same states, and have to end in the same states.
    """
    config = load_config(
        ["task=pick_place", "pick_place.horizon=10000", f"mujoco.num_threads={num_threads}"]
    )
    for name, module, wrap in (
        ("state", MODULE, lambda simulator: simulator),
        ("96 x 96 x 3 images", "bench.image_bridge", WithImages),
    ):
        composed: Simulator = wrap(simulator_of(config, num_envs))
        bridge = BridgeProcess(to_yaml(config), module=module)
        remote = RemoteSimulator(composed.task, num_envs, bridge)
        yield from _compare(name, composed, remote, chunks, rounds)
        composed.close()
        remote.close()


def _compare(
    name: str, composed: Simulator, remote: Simulator, chunks: int, rounds: int
) -> Iterator[Row]:
    keys = [Key(1, 0, group) for group in range(composed.num_envs)]
    chunk_size, size = composed.contract.chunk_size, composed.contract.action_size
    actions = 0.5 * normal("bench", keys, (chunks, chunk_size, size))
    initial = composed.task.sample(keys)

    def restart(simulator: Simulator) -> Callable[[], object]:
        return lambda: simulator.reset(initial, None, keys)

    def run(simulator: Simulator) -> Callable[[], object]:
        return lambda: [simulator.step(actions[:, i]) for i in range(chunks)]

    timings = interleave(
        {
            "restart composed": restart(composed),
            "composed": run(composed),
            "restart separate": restart(remote),
            "separate": run(remote),
            "observe composed": composed.observe,
            "observe separate": remote.observe,
        },
        rounds,
    )
    assert remote.snapshot().row_hashes() == composed.snapshot().row_hashes()
    ours, theirs = remote.step(actions[:, 0]).obs, composed.step(actions[:, 0]).obs
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs), "observations differ"
    steps = composed.num_envs * chunks * chunk_size
    for where in ("composed", "separate"):
        timing = timings[where]
        spread = f"{steps / timing.quantile(0.9):,.0f} to {steps / timing.quantile(0.1):,.0f}"
        yield f"{name}: {where}", f"{steps / timing.median:,.0f} env steps/s", spread
    ratio = timings["composed"].seconds / timings["separate"].seconds
    spread = f"{np.quantile(ratio, 0.1):.3f} to {np.quantile(ratio, 0.9):.3f}"
    yield f"{name}: separate / composed", f"{np.median(ratio):.3f}", spread
    beside = timings["observe separate"].seconds - timings["observe composed"].seconds
    spread = f"{np.quantile(beside, 0.1) * 1e3:.2f} to {np.quantile(beside, 0.9) * 1e3:.2f} ms"
    yield f"{name}: transport of one observation", f"{np.median(beside) * 1e3:.2f} ms", spread
