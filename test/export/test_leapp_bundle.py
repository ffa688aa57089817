"""The bundle as leapp's own runtime reads it."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import onnx
import pytest
import torch
import yaml

from grpo_ros.contract import ActionField, ObservationField, Source
from grpo_ros.errors import PolicyFileError
from grpo_ros.export.leapp_bundle import export_leapp
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy
from grpo_ros.tasks.insert import Insert
from grpo_ros.tasks.pick_place import PickPlace

POLICIES = pytest.mark.parametrize(
    "config", [GaussianConfig(), FlowConfig()], ids=["gaussian", "flow"]
)


@pytest.fixture(scope="module")
def leapp():
    return pytest.importorskip(
        "leapp", reason="leapp is not installed: make setup-test installs it without dependencies"
    )


def written(config, contract, folder):
    """Return the policy file of a random policy, and its bundle."""
    generator = torch.Generator().manual_seed(0)
    policy = make_policy(config, contract, generator)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    export_policy(policy, contract, folder / "trained.onnx")
    served = load_policy_file(folder / "trained.onnx")
    return served, export_leapp(served, folder / "bundle")


def random_inputs(served, seed):
    random = np.random.default_rng(seed)
    return {
        name: (2.0 * random.standard_normal(value.shape)).astype(np.float32)
        for name, value in served.zeros().items()
    }


def actions_of(manager, inputs, contract):
    """Return what leapp's runtime decides, (1, K, A), back in the units of our actions."""
    outputs = manager.run_policy(
        {f"policy/{name}": torch.from_numpy(value) for name, value in inputs.items()}
    )
    parts = [
        outputs[f"actions/{field.name}"].cpu().numpy() / np.array(field.scale, np.float32)
        for field in contract.action
    ]
    return np.concatenate(parts, axis=2)


@POLICIES
@pytest.mark.parametrize("task", [PickPlace, Insert])
def test_leapp_gives_our_actions(leapp, tmp_path, config, task):
    served, bundle = written(config, task().contract(), tmp_path)
    manager = leapp.InferenceManager(str(bundle.description))
    ours, error = [], 0.0
    for seed in range(50):
        inputs = random_inputs(served, seed)
        expected = served.infer(inputs)
        theirs = actions_of(manager, inputs, served.contract)
        error = max(error, float(np.abs(theirs - expected).max()))
        ours.append(expected)
    print(f"{type(config).__name__}, {served.contract.task}: largest difference {error:.1e}")
    assert error <= 1e-5
    assert np.stack(ours).std(axis=0).max() > 0.01, "the policy must depend on what it sees"


def test_a_policy_with_noise_gets_it_through_leapp(leapp, make_contract, tmp_path):
    contract = dataclasses.replace(make_contract(), noise_shape=(4, 2))
    served, bundle = written(FlowConfig(), contract, tmp_path)
    manager = leapp.InferenceManager(str(bundle.description))
    assert manager.inputs == ["policy/tip", "policy/gap", "policy/noise"]
    inputs = random_inputs(served, 0)
    theirs = actions_of(manager, inputs, contract)
    assert np.abs(theirs - served.infer(inputs)).max() <= 1e-5


def test_leapp_refuses_a_bundle_whose_policy_was_exchanged(leapp, make_contract, tmp_path):
    _, bundle = written(GaussianConfig(), make_contract(), tmp_path)
    (tmp_path / "other").mkdir()
    _, other = written(FlowConfig(), make_contract(), tmp_path / "other")
    bundle.policy.write_bytes(other.policy.read_bytes())
    with pytest.raises(ValueError, match="checksum"):
        leapp.InferenceManager(str(bundle.description))


def entries(bundle, model, side):
    description = yaml.safe_load(bundle.description.read_text())
    return {entry["name"]: entry for entry in description["models"][model][side]}


def test_kinds_are_those_of_leapp_or_plainly_ours(leapp, tmp_path):
    contract = dataclasses.replace(PickPlace().contract(), task="kinds")
    _, bundle = written(GaussianConfig(hidden=(8,)), contract, tmp_path)
    known = {kind.value for kinds in (leapp.InputKindEnum, leapp.OutputKindEnum) for kind in kinds}
    inputs, outputs = entries(bundle, "policy", "inputs"), entries(bundle, "actions", "outputs")
    for entry in (*inputs.values(), *outputs.values()):
        assert entry["kind"] in known or entry["kind"].startswith("grpo_ros/")
        semantics = leapp.TensorSemantics(
            name=entry["name"],
            ref=torch.zeros(entry["shape"]),
            element_names=entry["element_names"],
        )
        assert semantics.to_dict()["element_names"] == entry["element_names"]


def test_fields_keep_order_names_units_and_rates(make_contract, tmp_path):
    joints = ("elbow", "wrist")
    fields = (
        ObservationField("tip", (3,), Source("position", ("tip",)), unit="m", frame="base"),
        ObservationField("gap", (3,), Source("position", ("a",), "b"), unit="m"),
        ObservationField("angles", (2,), Source("joint_position", joints), unit="rad"),
        ObservationField("speeds", (2,), Source("joint_velocity", joints), history=3),
        ObservationField("halves", (2,), Source("joint_position", joints), scale=0.5),
        ObservationField("before", (2,), Source("last_action")),
    )
    arm = ActionField("arm", "joint_position", joints, (1.5, 3.0), "rad", controller="arm")
    contract = dataclasses.replace(
        make_contract(), observation=fields, action=(arm,), num_executed=2, control_rate_hz=25.0
    )
    _, bundle = written(GaussianConfig(hidden=(8,)), contract, tmp_path)
    inputs, outputs = entries(bundle, "policy", "inputs"), entries(bundle, "actions", "outputs")
    assert list(inputs) == [field.name for field in fields]
    kinds = {name: entry["kind"] for name, entry in inputs.items()}
    assert kinds == {
        "tip": "state/body/position",
        "gap": "state/vector3d",
        "angles": "state/joint/position",
        "speeds": "state/joint/velocity",
        "halves": "grpo_ros/joint_position",
        "before": "grpo_ros/last_action",
    }
    assert inputs["angles"]["element_names"] == [[], list(joints)]
    assert inputs["speeds"]["shape"] == [1, 3, 2] and inputs["speeds"]["temporal_period_ms"] == 40
    assert inputs["before"]["element_names"] == [[], ["arm.elbow", "arm.wrist"]]
    assert (inputs["tip"]["unit"], inputs["tip"]["frame"]) == ("m", "base")
    assert inputs["halves"]["grpo_ros"]["scale"] == 0.5
    assert inputs["gap"]["source"] == "gap" and "source" not in inputs["angles"]
    out = outputs["arm"]
    assert (out["kind"], out["shape"], out["unit"]) == ("target/joint/position", [1, 4, 2], "rad")
    assert out["element_names"] == [[], [], list(joints)] and out["temporal_period_ms"] == 40
    description = yaml.safe_load(bundle.description.read_text())
    assert description["pipeline"]["configs"]["frequency"] == 12.5
    assert description["semantic"]["scene"]["dt"] == 0.04


def test_what_leapp_has_no_field_for_lies_under_our_own_name(tmp_path):
    contract = PickPlace().contract()
    _, bundle = written(GaussianConfig(hidden=(8,)), contract, tmp_path)
    usage = yaml.safe_load(bundle.description.read_text())["pipeline"]["configs"]["grpo_ros"]
    assert [limit["name"] for limit in usage["limits"]] == list(contract.joint_names)
    assert usage["limits"][0]["velocity"] == contract.limits[0].velocity
    assert usage["control_rate_hz"] == contract.control_rate_hz
    assert usage["horizon"] == contract.horizon
    assert usage["contract_sha256"] == load_policy_file(bundle.policy).contract.sha256


def test_the_policy_goes_in_as_it_is_and_hashes_are_of_the_files(make_contract, tmp_path):
    served, bundle = written(GaussianConfig(hidden=(8,)), make_contract(), tmp_path)
    assert bundle.policy.read_bytes() == served.path.read_bytes()
    onnx.checker.check_model(onnx.load(bundle.actions), full_check=True)
    models = yaml.safe_load(bundle.description.read_text())["models"]
    for name, path in (("policy", bundle.policy), ("actions", bundle.actions)):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert models[name]["parameters"]["sha256sum"] == digest
        assert bundle.folder / models[name]["parameters"]["model_path"] == path
    assert sorted(p.name for p in bundle.folder.iterdir()) == [
        "actions.onnx",
        "policy.onnx",
        "policy.yaml",
    ]
    before = bundle.description.read_bytes()
    export_leapp(served.path, bundle.folder)
    assert bundle.description.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "named"), [("arm/left", "arm/left"), ("action", "another tensor")]
)
def test_names_that_leapp_would_misread_are_refused(make_contract, tmp_path, name, named):
    contract = make_contract()
    action = dataclasses.replace(contract.action[0], name=name)
    contract = dataclasses.replace(contract, action=(action,))
    with pytest.raises(PolicyFileError, match=named):
        written(GaussianConfig(hidden=(8,)), contract, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_a_damaged_policy_leaves_an_older_bundle_alone(make_contract, tmp_path):
    served, bundle = written(GaussianConfig(hidden=(8,)), make_contract(), tmp_path)
    before = bundle.policy.read_bytes()
    served.path.write_bytes(before[:-1])
    with pytest.raises(PolicyFileError, match=str(served.path)):
        export_leapp(served.path, bundle.folder)
    assert bundle.policy.read_bytes() == before
