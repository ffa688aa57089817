"""ONNX Runtime against torch: difference and latency of one decision."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.timing import interleave
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace

Row = tuple[str, str, str]


def onnx(rounds: int = 2000) -> Iterator[Row]:
    """Compare both policies' exported graphs with torch on real observations, batch 1."""
    task = PickPlace()
    simulator = MujocoSimulator(task, 256)
    keys = [Key(1, 0, group) for group in range(256)]
    obs = dict(simulator.reset(task.sample(keys), None, keys))
    one = {name: value[:1] for name, value in obs.items()}
    one_numpy = {name: value.numpy() for name, value in one.items()}
    for config in (GaussianConfig(), FlowConfig()):
        policy = make_policy(config, simulator.contract, torch.Generator().manual_seed(0))
        policy.normaliser.fit(policy.features(obs))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "policy.onnx"
            report = export_policy(policy, simulator.contract, path, obs)
            served = load_policy_file(path)
            with torch.no_grad():
                timings = interleave(
                    {
                        "onnx": lambda served=served: served.infer(one_numpy),
                        "torch": lambda policy=policy: policy.mode(one),
                    },
                    rounds,
                    warm_up=50,
                )
        name = type(policy).__name__
        yield f"{name}: ONNX - torch", f"{report.max_abs_difference:.1e}", "largest difference"
        for engine, timing in timings.items():
            p50, p99 = timing.median * 1e6, timing.quantile(0.99) * 1e6
            yield f"{name}: {engine} p50", f"{p50:.0f} us", f"p99 {p99:.0f} us"
    simulator.close()
