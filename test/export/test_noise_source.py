from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from grpo_ros.contract import Contract
from grpo_ros.errors import ContractError
from grpo_ros.export.noise_source import NoiseSource
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import FlowConfig, make_policy


@pytest.fixture
def noisy(make_contract):
    return dataclasses.replace(make_contract(), noise_shape=(4, 2))


def test_a_draw_is_a_function_of_seed_episode_and_inference_alone(noisy):
    first, second = NoiseSource(noisy, 3), NoiseSource(noisy, 3)
    second.draw(0, 0)
    again = second.draw(5, 7)
    assert again.shape == (1, 4, 2) and again.dtype == np.float32
    assert np.array_equal(first.draw(5, 7), again)
    draws = [
        NoiseSource(noisy, seed).draw(episode, inference).tobytes()
        for seed in (3, 4)
        for episode in (0, 1, 2)
        for inference in (0, 1, 2)
    ]
    assert len(set(draws)) == len(draws)


def test_draws_are_standard_normal(noisy):
    source = NoiseSource(noisy, 0)
    values = np.concatenate([source.draw(e, i).ravel() for e in range(50) for i in range(50)])
    # 20 000 numbers: the mean's standard error is 0.007, the deviation's 0.005.
    assert abs(values.mean()) < 0.035 and abs(values.std() - 1.0) < 0.025


@pytest.mark.parametrize(
    ("seeding", "is_new"), [("", True), ("per_inference", True), ("per_episode", False)]
)
def test_the_contract_says_how_often_noise_is_drawn(noisy, seeding, is_new):
    source = NoiseSource(dataclasses.replace(noisy, noise_seeding=seeding), 0)
    assert np.array_equal(source.draw(2, 0), source.draw(2, 1)) != is_new
    assert not np.array_equal(source.draw(2, 0), source.draw(3, 0))


def test_another_seeding_is_refused_by_name(noisy):
    data = json.loads(noisy.to_json())
    data["noise_seeding"] = "hourly"
    with pytest.raises(ContractError, match="noise_seeding.*hourly"):
        Contract.from_json(json.dumps(data))


def test_a_policy_without_noise_is_refused(make_contract):
    with pytest.raises(ContractError, match="takes no noise"):
        NoiseSource(make_contract(), 0)


def test_an_exported_flow_policy_decides_from_it_as_in_torch(noisy, tmp_path):
    policy = make_policy(FlowConfig(), noisy)
    export_policy(policy, noisy, tmp_path / "p.onnx")
    served = load_policy_file(tmp_path / "p.onnx")
    source = NoiseSource(served.contract, 1)
    obs = {"tip": np.ones((1, 3), np.float32), "gap": np.zeros((1, 2), np.float32)}
    chunks = []
    for inference in range(3):
        noise = source.draw(0, inference)
        chunk = served.infer({**obs, "noise": noise})
        with torch.no_grad():
            tensors = {name: torch.from_numpy(value) for name, value in obs.items()}
            expected = policy.decide(tensors, torch.from_numpy(noise)).numpy()
        assert np.abs(chunk - expected).max() <= 1e-5
        chunks.append(chunk)
    assert not np.array_equal(chunks[0], chunks[1])
