"""Reading a checkpoint: what is understood, every mistake named, nothing of the extra used."""

import os
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import TAG, change, write, write_checkpoint
from safetensors.numpy import save_file

from grpo_ros.errors import CheckpointError
from grpo_ros.policies.gr00t.files.checkpoint import read_checkpoint

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00002.safetensors"
MODALITY = ("processor_kwargs", "modality_configs", TAG)


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint")


def test_a_checkpoint_says_what_its_embodiment_sees_and_does(folder):
    checkpoint = read_checkpoint(folder)
    assert (checkpoint.path, checkpoint.tokenizer_path) == (folder, folder / "tokenizer")
    assert (checkpoint.embodiment, checkpoint.embodiment_id) == (TAG, 10)
    assert checkpoint.cameras == ("front",)
    (state,) = checkpoint.state
    assert (state.name, state.start, state.low, state.high) == ("arm", 0, (-1, -2), (1, 2))
    assert checkpoint.action_horizon == 2
    assert (checkpoint.state_size, checkpoint.action_size) == (2, 4)
    assert checkpoint.num_denoising_steps == 3
    assert checkpoint.formalize_language and checkpoint.clip_outliers
    assert checkpoint.geometry.target_size == (256, 256)
    assert checkpoint.geometry.crop_fraction == 230 / 256
    assert checkpoint.backbone == "nvidia/Cosmos-Reason2-2B"
    assert checkpoint.shapes == {"tensor_1": (2, 1), "tensor_2": (2, 2)}


def test_a_relative_group_takes_its_range_by_step(folder):
    arm, wrist = read_checkpoint(folder).action
    assert (arm.representation, arm.low, arm.step_low) == ("ABSOLUTE", (-1, -2), ())
    assert (wrist.representation, wrist.start) == ("RELATIVE", 2)
    assert wrist.step_low == ((-1, -1), (-2, -1))
    assert (wrist.low, wrist.high) == ((-2, -1), (2, 3))


def test_without_use_relative_action_all_groups_are_absolute(folder):
    path = folder / "processor_config.json"
    change(path, "processor_kwargs", "use_relative_action", value=False)
    assert [group.representation for group in read_checkpoint(folder).action] == ["ABSOLUTE"] * 2


def test_without_percentiles_the_range_is_minimum_and_maximum(folder):
    path = folder / "processor_config.json"
    change(path, "processor_kwargs", "use_percentiles", value=False)
    assert read_checkpoint(folder).state[0].high == (3.0, 4.0)


def test_an_embodiment_may_have_no_state(folder):
    change(folder / "processor_config.json", *MODALITY, "action", "action_configs", value=[])
    change(folder / "processor_config.json", *MODALITY, "state", value=...)
    assert read_checkpoint(folder).state == ()


def test_one_file_without_an_index_is_read_too(folder):
    (folder / INDEX).unlink()
    save_file({"tensor": np.zeros(3, np.float32)}, folder / "model.safetensors")
    assert read_checkpoint(folder).shapes == {"tensor": (3,)}


def test_a_tokenizer_of_another_folder_is_taken(folder, tmp_path):
    moved = (folder / "tokenizer").rename(tmp_path / "cosmos")
    assert read_checkpoint(folder, moved).tokenizer_path == moved


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nvidia/GR00T-N1.7-3B", "name on a hub.*hf download nvidia/GR00T-N1.7-3B --local-dir"),
        ("checkpoints/mine/last", "'checkpoints/mine/last' cannot be read"),
        ("/nowhere/at/all", "'/nowhere/at/all' cannot be read"),
    ],
)
def test_a_path_has_to_be_there(path, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_relative_path_is_taken_from_where_the_process_is(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[1])
    beside = folder.relative_to(folder.parents[1])  # two names, as those on a hub
    assert read_checkpoint(beside).path == folder.resolve()


def test_a_lerobot_policy_is_told_from_a_checkpoint(folder):
    change(folder / "config.json", "type", value="groot")
    with pytest.raises(CheckpointError, match="is a LeRobot policy.*base_model_path"):
        read_checkpoint(folder)


def test_an_unknown_embodiment_is_answered_with_the_nearest(folder):
    with pytest.raises(CheckpointError, match="did you mean 'new_embodiment'"):
        read_checkpoint(folder, embodiment="new_embodyment")


def test_an_embodiment_without_statistics_is_refused(folder):
    with pytest.raises(CheckpointError, match="nothing about embodiment 'other_robot'"):
        read_checkpoint(folder, embodiment="other_robot")


def test_a_missing_tokenizer_comes_with_its_remedy(folder):
    (folder / "tokenizer").rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match="hf download nvidia/Cosmos-Reason2-2B"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "processor_config.json",
        "statistics.json",
        "embodiment_id.json",
        INDEX,
        SHARD,
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/preprocessor_config.json",
    ],
)
def test_each_missing_file_is_named(folder, name):
    (folder / name).unlink()
    expected = "no weights" if name == INDEX else name.rpartition("/")[2]
    with pytest.raises(CheckpointError, match=expected):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("file", "keys", "value", "message"),
    [
        ("config.json", ["model_type"], "Gr00tN1d5", "is a Gr00tN1d5.*GR00T N1.7"),
        ("config.json", ["action_horizon"], ..., "no 'action_horizon'"),
        ("config.json", ["max_action_dim"], 3, "4 components.*at most the 3"),
        ("config.json", ["max_state_dim"], "8", "max_state_dim is '8'.*integer"),
        ("config.json", ["max_state_dim"], 9, "max_state_dim is 8.*9, as config.json says"),
        ("config.json", ["action_horizon"], 1, "1 to 1 steps"),
        ("config.json", ["state_history_length"], 2, "2 to 2 steps"),
        ("config.json", ["max_num_embodiments"], 10, "is 10.*from 0 to 9"),
        ("config.json", ["diffusion_model_cfg"], {"num_layers": 10**9}, "from 0 to 512"),
        ("config.json", ["model_name"], "somewhere", "no readable 'config.json'"),
        ("processor_config.json", ["processor_kwargs"], ..., "no 'processor_kwargs'"),
        ("processor_config.json", [*MODALITY, "video", "modality_keys"], [], "one camera"),
        ("processor_config.json", [*MODALITY, "video", "modality_keys"], ["a", "a"], "differ"),
        ("processor_config.json", [*MODALITY, "state", "modality_keys"], ["leg"], "no 'leg'"),
        (
            "processor_config.json",
            [*MODALITY, "state", "mean_std_embedding_keys"],
            ["arm"],
            "null",
        ),
        ("processor_config.json", [*MODALITY, "action", "action_configs"], [{}], "2 entries"),
        (
            "processor_config.json",
            [*MODALITY, "action", "action_configs"],
            [{}, {"rep": "WILD"}],
            "'WILD'.*ABSOLUTE",
        ),
        (
            "processor_config.json",
            [*MODALITY, "action", "action_configs"],
            [{}, {"rep": "RELATIVE", "state_key": "leg"}],
            "'leg'.*a state group: arm",
        ),
        (
            "processor_config.json",
            ["processor_kwargs", "apply_sincos_state_encoding"],
            True,
            "apply_sincos_state_encoding is True",
        ),
        (
            "processor_config.json",
            ["processor_kwargs", "image_target_size"],
            [256],
            "height and width",
        ),
        ("statistics.json", [TAG, "state", "arm", "q01"], ..., "no 'q01'.*q99"),
        (
            "statistics.json",
            [TAG, "state", "arm", "q01"],
            [0.0],
            "q01 and q99 have 1 x 1 and 1 x 2",
        ),
        ("statistics.json", [TAG, "state", "arm", "mean"], [0.0] * 3, "mean has 3 components"),
        ("statistics.json", [TAG, "state", "arm", "q01"], [5.0, 0.0], "q01 above q99"),
        ("statistics.json", [TAG, "state", "arm", "q01"], [float("nan"), 0.0], "finite number"),
        ("statistics.json", [TAG, "state", "arm", "q01"], [10**400, 0], "finite number"),
        ("statistics.json", [TAG, "relative_action"], {}, "no 'wrist'"),
        ("embodiment_id.json", [TAG], "ten", "'ten'.*integer"),
        ("tokenizer/preprocessor_config.json", ["image_std"], [1.0], "three numbers"),
        ("tokenizer/preprocessor_config.json", ["image_std"], [0, 1, 1], "is 0.*from 1e-06"),
        ("tokenizer/preprocessor_config.json", ["image_mean"], [1e300, 0, 0], "to 1000000.0"),
        ("tokenizer/preprocessor_config.json", ["rescale_factor"], 0, "is 0.*from 1e-06"),
        ("tokenizer/preprocessor_config.json", ["rescale_factor"], 1e-320, "from 1e-06"),
        ("tokenizer/preprocessor_config.json", ["rescale_factor"], -1.0, "from 1e-06"),
        ("tokenizer/preprocessor_config.json", ["do_resize"], False, "do_resize is False"),
        ("tokenizer/preprocessor_config.json", ["image_processor_type"], "Clip", "Cosmos"),
        ("tokenizer/tokenizer_config.json", ["auto_map"], {"AutoTokenizer": "x.py"}, "own code"),
    ],
)
def test_each_wrong_value_is_named_with_what_was_expected(folder, file, keys, value, message):
    change(folder / file, *keys, value=value)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"a": NaN', b"\xff\xfe"])
def test_a_file_that_is_no_json_object_is_named(folder, text):
    (folder / "statistics.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match="statistics.json is"):
        read_checkpoint(folder)


def test_a_json_file_of_any_size_is_not_read_whole(folder):
    with (folder / "statistics.json").open("wb") as file:
        file.truncate(2**40)  # a hole: nothing is stored
    with pytest.raises(CheckpointError, match="larger than 33554432 bytes"):
        read_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 30, -1])
def test_a_truncated_shard_is_named(folder, keep):
    data = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(data[:keep])
    with pytest.raises(CheckpointError, match=f"{SHARD} is no whole safetensors file"):
        read_checkpoint(folder)


def test_a_header_that_claims_terabytes_is_refused(folder):
    (folder / SHARD).write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_checkpoint(folder)


def test_a_pickle_in_place_of_a_shard_is_refused(folder):
    (folder / SHARD).write_bytes(b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        read_checkpoint(folder)


def test_a_tensor_that_the_index_places_elsewhere_is_named(folder):
    change(folder / INDEX, "weight_map", "tensor_3", value=SHARD)
    with pytest.raises(CheckpointError, match="do not agree about 'tensor_3'"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/passwd", "weights.bin", "a\\b"])
def test_the_index_names_plain_files_of_the_folder_only(folder, name):
    save_file({"tensor_2": np.zeros(1, np.float32)}, folder.parent / "weights.safetensors")
    change(folder / INDEX, "weight_map", "tensor_2", value=name)
    with pytest.raises(CheckpointError, match="name of a .safetensors file in the folder"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", [SHARD, "statistics.json", INDEX])
def test_a_link_out_of_the_folder_is_not_followed(folder, name):
    outside = (folder / name).rename(folder.parent / "outside")
    (folder / name).symlink_to(outside)
    with pytest.raises(CheckpointError, match="leads to .*outside.*cp -rL"):
        read_checkpoint(folder)


def test_a_link_that_leads_to_itself_ends(folder):
    (folder / SHARD).unlink()
    (folder / SHARD).symlink_to(folder / SHARD)
    with pytest.raises(CheckpointError, match="no readable"):
        read_checkpoint(folder)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("section", "key"),
    [((), "auto_map"), ((), "quantization_config"), (("text_config",), "_attn_implementation")],
)
def test_a_backbone_that_would_run_other_code_is_refused(folder, section, key):
    change(folder / "config.json", "model_name", value="tokenizer")
    path = folder / "tokenizer" / "config.json"
    write(
        path,
        {
            "model_type": "qwen3_vl",
            "text_config": {"num_hidden_layers": 2},
            "vision_config": {"depth": 2},
        },
    )
    assert read_checkpoint(folder).backbone == ""
    change(path, *section, key, value={"AutoConfig": "evil.py"})
    with pytest.raises(CheckpointError, match=f"{key}.*model's own code"):
        read_checkpoint(folder)


def test_reading_imports_nothing_of_the_extra(folder):
    code = (
        "import sys; from grpo_ros.policies.gr00t.files.checkpoint import read_checkpoint; "
        f"read_checkpoint({str(folder)!r}); "
        "print(sorted({'lerobot', 'transformers', 'peft', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
