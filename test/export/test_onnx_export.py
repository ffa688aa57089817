from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch

from grpo_ros.contract import Contract
from grpo_ros.errors import PolicyFileError
from grpo_ros.export import onnx_export
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy

POLICIES = pytest.mark.parametrize(
    "config", [GaussianConfig(), FlowConfig()], ids=["gaussian", "flow"]
)


def observe(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "tip": 3.0 * torch.randn(num, 3, generator=generator) + 1.0,
        "gap": torch.randn(num, 2, generator=generator),
    }


def fitted(config, contract):
    policy = make_policy(config, contract)
    policy.normaliser.fit(policy.features(observe(100, seed=1)))
    return policy, policy.normaliser.annotate(contract)


@POLICIES
@pytest.mark.parametrize("num", [1, 256])
def test_the_file_gives_the_actions_of_the_policy(make_contract, tmp_path, config, num):
    policy, contract = fitted(config, make_contract())
    report = export_policy(policy, contract, tmp_path / "p.onnx", observe(50))
    assert report.max_abs_difference <= 1e-5
    assert report.num_observations == 306
    obs = observe(num, seed=5)
    action = load_policy_file(report.path).infer({n: v.numpy() for n, v in obs.items()})
    with torch.no_grad():
        expected = policy.mode(obs).numpy()
    assert action.shape == (num, 4, 2)
    assert np.abs(action - expected).max() <= 1e-5


@POLICIES
def test_actions_of_the_file_stay_in_range(make_contract, tmp_path, config):
    policy, contract = fitted(config, make_contract())
    with torch.no_grad():
        policy.network[-1].bias.add_(50.0)
    export_policy(policy, contract, tmp_path / "p.onnx")
    obs = {n: v.numpy() for n, v in observe(3).items()}
    assert (load_policy_file(tmp_path / "p.onnx").infer(obs) == 1.0).all()


@POLICIES
def test_likelihood_is_unchanged_by_an_export(make_contract, tmp_path, config):
    policy, contract = fitted(config, make_contract())
    obs = observe(64)
    with torch.no_grad():
        sample = policy.act(obs, torch.randn(64, *policy.noise_shape))
        export_policy(policy, contract, tmp_path / "p.onnx")
        assert torch.equal(policy.log_prob(obs, sample), sample.log_prob)


def test_the_contract_comes_out_as_it_went_in(make_contract, tmp_path):
    policy, contract = fitted(GaussianConfig(), make_contract())
    contract = contract.with_provenance(seed=3, note="ä λ", rate=0.1)
    report = export_policy(policy, contract, tmp_path / "p.onnx")
    read = load_policy_file(report.path).contract
    assert read == contract
    assert read.field("tip").statistics == contract.field("tip").statistics
    assert report.sha256 == read.sha256 == contract.sha256


def test_plain_metadata_are_those_that_other_controllers_read(make_contract, tmp_path):
    policy, contract = fitted(GaussianConfig(), make_contract())
    export_policy(policy, contract, tmp_path / "p.onnx")
    model = onnx.load(tmp_path / "p.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["observation_names"] == "tip,gap"
    assert metadata["action_scale"] == "0.1,0.1"
    assert float(metadata["control_rate_hz"]) == contract.control_rate_hz
    assert metadata["joint_names"] == ",".join(contract.joint_names)
    assert Contract.from_json(metadata["metadata"]) == contract
    assert json.loads(metadata["metadata"])["task"] == "toy"
    assert next(o.version for o in model.opset_import if o.domain == "") >= 17


def test_a_contract_with_noise_gives_the_graph_a_noise_input(make_contract, tmp_path):
    policy, contract = fitted(FlowConfig(), make_contract())
    contract = dataclasses.replace(contract, noise_shape=(4, 2))
    export_policy(policy, contract, tmp_path / "p.onnx")
    file = load_policy_file(tmp_path / "p.onnx")
    obs, noise = observe(5), torch.randn(5, 4, 2)
    arrays = {n: v.numpy() for n, v in obs.items()}
    with torch.no_grad():
        expected = policy.decide(obs, noise).numpy()
    assert np.abs(file.infer({**arrays, "noise": noise.numpy()}) - expected).max() <= 1e-5


def test_a_graph_that_differs_is_not_written(make_contract, tmp_path, monkeypatch):
    policy, contract = fitted(GaussianConfig(), make_contract())
    path = tmp_path / "p.onnx"
    export_policy(policy, contract, path)
    before = path.read_bytes()
    monkeypatch.setattr(onnx_export, "MAX_ABS_DIFFERENCE", -1.0)
    with pytest.raises(PolicyFileError, match="differ"):
        export_policy(policy, contract, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.onnx"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_graph_that_gives_no_numbers_is_not_written(make_contract, tmp_path, monkeypatch, value):
    policy, contract = fitted(GaussianConfig(), make_contract())
    infer = onnx_export.PolicyFile.infer
    monkeypatch.setattr(
        onnx_export.PolicyFile, "infer", lambda self, obs: infer(self, obs) + np.float32(value)
    )
    with pytest.raises(PolicyFileError, match="differ"):
        export_policy(policy, contract, tmp_path / "p.onnx", observe(50))
    assert not list(tmp_path.iterdir())


def test_an_observation_named_like_another_input_is_refused(make_contract, tmp_path):
    contract = make_contract()
    field = dataclasses.replace(contract.observation[0], name="noise")
    contract = dataclasses.replace(contract, observation=(field, contract.observation[1]))
    with pytest.raises(PolicyFileError, match="noise"):
        export_policy(make_policy(GaussianConfig(), contract), contract, tmp_path / "p.onnx")


def test_the_same_policy_gives_the_same_file(make_contract, tmp_path):
    policy, contract = fitted(GaussianConfig(), make_contract())
    first, second = (
        export_policy(policy, contract, tmp_path / name).path.read_bytes() for name in "ab"
    )
    assert first == second
