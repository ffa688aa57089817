from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap

import numpy as np
import onnx
import pytest
import torch
from hostile import get_metadata, set_metadata, write_contract, write_sealed

from grpo_ros.errors import ConfigurationError, ContractError, PolicyFileError
from grpo_ros.export.inference_session import provider_names
from grpo_ros.export.metadata import sealed
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import GaussianConfig, make_policy

OBS = {"tip": np.zeros((2, 3), np.float32), "gap": np.zeros((2, 2), np.float32)}


@pytest.fixture
def path(make_contract, tmp_path):
    contract = make_contract()
    path = tmp_path / "policy.onnx"
    export_policy(make_policy(GaussianConfig(hidden=(8,)), contract), contract, path)
    return path


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    for place in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(PolicyFileError, match=str(place)):
            load_policy_file(place)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00" * 100, b"not a model", b"\x08\x07", b"\xff" * 4096, b"PK\x03\x04" + bytes(50)],
    ids=["empty", "zeros", "text", "header_only", "ones", "zip"],
)
def test_files_that_are_not_onnx_are_refused(tmp_path, data):
    path = tmp_path / "p.onnx"
    path.write_bytes(data)
    with pytest.raises(PolicyFileError):
        load_policy_file(path)


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    data = path.read_bytes()
    for end in range(1, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:end])
        with pytest.raises(PolicyFileError):
            load_policy_file(path)


def test_an_altered_byte_is_refused_wherever_it_is(path):
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(PolicyFileError):
            load_policy_file(path)


def test_bytes_after_the_end_are_refused(path):
    model = onnx.load(path)
    model.doc_string = "appended"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PolicyFileError, match="file_sha256"):
        load_policy_file(path)


def test_a_file_above_the_size_limit_is_not_parsed(path):
    with pytest.raises(PolicyFileError, match="larger than 100 bytes"):
        load_policy_file(path, max_bytes=100)


@pytest.mark.parametrize("key", ["metadata", "contract_sha256", "file_sha256"])
def test_missing_metadata_are_named(path, key):
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    path.write_bytes(sealed(model.SerializeToString()))
    with pytest.raises(PolicyFileError, match=key):
        load_policy_file(path)


def test_metadata_given_twice_are_refused(path):
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "metadata", "{}"
    write_sealed(model, path)
    with pytest.raises(PolicyFileError, match="repeats"):
        load_policy_file(path)


def test_a_contract_that_does_not_match_its_hash_is_refused(path):
    model = onnx.load(path)
    set_metadata(model, "metadata", get_metadata(model, "metadata").replace("toy", "joy"))
    write_sealed(model, path)
    with pytest.raises(PolicyFileError, match="contract_sha256"):
        load_policy_file(path)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("schema_version", 99, "schema 99"),
        ("chunk_size", "four", "chunk_size"),
        ("surprise", 1, "surprise"),
        ("num_executed", 9, "num_executed"),
    ],
)
def test_a_contract_of_another_shape_is_refused_by_key(path, key, value, named):
    model = onnx.load(path)
    data = json.loads(get_metadata(model, "metadata"))
    data[key] = value
    write_contract(model, data, path)
    with pytest.raises(PolicyFileError, match=named):
        load_policy_file(path)


def test_a_contract_that_could_not_be_read_again_is_not_written(make_contract):
    contract = make_contract().with_provenance(task_settings={"reach_m": float("inf")})
    with pytest.raises(ContractError, match="'toy' has a number that is not finite"):
        contract.to_json()


def test_a_contract_that_is_not_json_is_refused(path):
    model = onnx.load(path)
    set_metadata(model, "metadata", "{" * 5000)
    digest = hashlib.sha256(("{" * 5000).encode()).hexdigest()
    set_metadata(model, "contract_sha256", digest)
    write_sealed(model, path)
    with pytest.raises(PolicyFileError, match="JSON"):
        load_policy_file(path)


@pytest.mark.parametrize(
    ("where", "change", "named"),
    [
        ("observation", {"name": "elbow"}, "elbow"),
        ("observation", {"shape": [4]}, "tip"),
        ("observation", {"dtype": "uint8"}, "tip"),
    ],
)
def test_inputs_that_are_not_those_of_the_contract_are_named(path, where, change, named):
    model = onnx.load(path)
    data = json.loads(get_metadata(model, "metadata"))
    data[where][0].update(change)
    write_contract(model, data, path)
    with pytest.raises(PolicyFileError, match=named):
        load_policy_file(path)


def test_an_output_that_is_not_that_of_the_contract_is_refused(path):
    model = onnx.load(path)
    data = json.loads(get_metadata(model, "metadata"))
    data["chunk_size"] = 7
    write_contract(model, data, path)
    with pytest.raises(PolicyFileError, match="outputs"):
        load_policy_file(path)


def test_an_operator_that_does_not_exist_is_refused(path):
    model = onnx.load(path)
    model.graph.node[0].op_type = "LaunchMissiles"
    write_sealed(model, path)
    with pytest.raises(PolicyFileError, match="ONNX Runtime refuses"):
        load_policy_file(path)


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider"])
def test_providers_have_short_names(path, name):
    assert load_policy_file(path, (name,)).provider == "CPUExecutionProvider"


def test_providers_keep_their_order():
    names = provider_names(["tensorrt", "cuda", "CPUExecutionProvider"])
    assert [name.removesuffix("ExecutionProvider") for name in names] == [
        "Tensorrt",
        "CUDA",
        "CPU",
    ]


def test_unknown_providers_are_refused_with_those_that_there_are(path):
    with pytest.raises(ConfigurationError, match="'cudda'.*cpu.*did you mean|known: cpu"):
        load_policy_file(path, ["cudda"])


def test_inference_takes_doubles_and_passes_over_what_it_does_not_know(path):
    file = load_policy_file(path)
    doubles = {name: value.astype(np.float64) for name, value in OBS.items()}
    assert np.array_equal(file.infer({**doubles, "scan": np.zeros(9)}), file.infer(OBS))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"gap": np.zeros((2, 3))}, "gap"),
        ({"gap": np.zeros((3, 2))}, "gap"),
        ({"tip": np.zeros(3)}, "tip"),
        ({"tip": np.float64(0.0)}, "tip"),
    ],
)
def test_inputs_of_another_shape_are_named(path, change, named):
    with pytest.raises(ContractError, match=named):
        load_policy_file(path).infer({**OBS, **change})


def test_a_missing_input_is_named(path):
    with pytest.raises(ContractError, match="gap"):
        load_policy_file(path).infer({"tip": OBS["tip"]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_the_cpu_is_used_in_silence(path):
    code = f"""
        from grpo_ros.export.policy_file import load_policy_file
        wanted = ("TensorrtExecutionProvider", "cuda")
        print(load_policy_file({str(path)!r}, wanted).provider)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "CPUExecutionProvider"
    assert done.stderr == ""
