"""Tiny checkpoints: reproducible, of the real layout, and fitting a task."""

import hashlib
import sys

import pytest
from gr00t_helpers import ACTION, INSTRUCTION, STATE, require_gr00t

from grpo_ros import cli
from grpo_ros.contract import ActionField, Contract, JointLimits, ObservationField, Source
from grpo_ros.errors import CheckpointError, ContractError
from grpo_ros.policies.gr00t.files.checkpoint import read_checkpoint
from grpo_ros.policies.gr00t.files.tiny_checkpoint import (
    make_tiny_checkpoint,
    make_tiny_checkpoint_for,
)

ARGUMENTS = {
    "cameras": ("front", "wrist"),
    "state": STATE,
    "action": ACTION,
    "action_horizon": 16,
    "instructions": INSTRUCTION,
}


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_same_arguments_give_the_same_bytes_and_another_seed_other_weights(
    tiny_folder, tmp_path
):
    again = hashes(make_tiny_checkpoint(tmp_path / "again", **ARGUMENTS))
    assert again == hashes(tiny_folder)
    other = hashes(make_tiny_checkpoint(tmp_path / "other", **ARGUMENTS, seed=1))
    differing = {name for name in again if other[name] != again[name]}
    assert differing == {name for name in again if name.startswith("model-")}


def test_it_has_two_to_three_million_weights_in_several_shards(tiny_checkpoint, tiny_model):
    assert 2e6 < sum(parameter.numel() for parameter in tiny_model.parameters()) < 3e6
    assert len(tiny_checkpoint.shards) > 1


def test_it_says_what_it_was_made_with(tiny_checkpoint):
    assert tiny_checkpoint.cameras == ("front", "wrist")
    for groups, given in ((tiny_checkpoint.state, STATE), (tiny_checkpoint.action, ACTION)):
        assert {group.name: (list(group.low), list(group.high)) for group in groups} == given
    assert tiny_checkpoint.action_horizon == 16
    assert tiny_checkpoint.geometry.target_size == (64, 64)


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path):
    require_gr00t()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty.*choose another"):
        make_tiny_checkpoint(tmp_path, **ARGUMENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": ()}, "cameras.*one or more"),
        ({"action": {}}, "0 components.*at least 1"),
        ({"state": {"arm": ([0.0] * 133, [1.0] * 133)}}, "133 components.*at most 132"),
        ({"state": {"arm": ([0.0], [1.0, 2.0])}}, "state group 'arm'.*one per component"),
        ({"action_horizon": 41}, "action_horizon = 41.*1 to 40"),
        ({"image_size": (64, 65)}, "multiples of 16"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path, change, message
):
    with pytest.raises(CheckpointError, match=message):
        make_tiny_checkpoint(tmp_path / "new", **{**ARGUMENTS, **change})
    assert not (tmp_path / "new").exists()


def test_without_the_packages_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lerobot.policies.groot.groot_n1_7", None)
    assert cli.main(["make-tiny-gr00t", str(tmp_path / "new")]) == cli.MISTAKE
    assert "`make setup EXTRAS=gr00t`" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def contract(**changes):
    fields = (
        ObservationField("cube", (3,), Source("position", ("cube",))),
        ObservationField("joints", (2,), Source("joint_position", ("a", "b")), history=2),
        ObservationField("speeds", (1,), Source("joint_velocity", ("b",)), scale=0.5),
        ObservationField("opening", (1,), Source("gripper_command")),
        ObservationField("tip", (3,), Source("position", ("tip",))),
        ObservationField("cube_from_tip", (3,), Source("position", ("cube",), "tip")),
        ObservationField("image", (8, 8, 3), Source("camera", ("wrist",)), dtype="uint8"),
    )
    settings = {
        "task": "toy",
        "instruction": "Do it.",
        "embodiment": "toy",
        "robot_sha256": "0",
        "observation": fields,
        "action": (
            ActionField("arm", "joint_delta", ("a", "b"), (0.1, 0.2)),
            ActionField("hand", "gripper", ("c",), (0.04,)),
        ),
        "limits": (
            JointLimits("a", -1.0, 2.0, 3.0, 1.0, 1.0, 1.0),
            JointLimits("b", -4.0, 5.0, 6.0, 1.0, 1.0, 1.0),
        ),
        "chunk_size": 5,
        "workspace": {"x": (0.2, 0.7), "y": (-0.4, 0.4)},
    }
    return Contract(**{**settings, **changes})


def test_one_for_a_contract_has_its_cameras_proprioception_and_actions(tmp_path):
    require_gr00t()
    checkpoint = read_checkpoint(make_tiny_checkpoint_for(contract(), tmp_path / "new"))
    assert checkpoint.cameras == ("wrist",)
    assert [(group.name, group.low, group.high) for group in checkpoint.state] == [
        ("joints", (-1.0, -4.0, -1.0, -4.0), (2.0, 5.0, 2.0, 5.0)),
        ("speeds", (-6.0,), (6.0,)),
        ("opening", (-1.0,), (1.0,)),
        ("tip", (0.2, -0.4, -1.0), (0.7, 0.4, 1.0)),
    ]
    assert [(group.name, group.low, group.high) for group in checkpoint.action] == [
        ("arm", (-0.1, -0.2), (0.1, 0.2)),
        ("hand", (-1.0,), (1.0,)),
    ]
    assert checkpoint.action_horizon == 8


def test_chunks_longer_than_the_models_are_refused(tmp_path):
    with pytest.raises(ContractError, match="chunk_size = 41.*at most 40"):
        make_tiny_checkpoint_for(contract(chunk_size=41), tmp_path / "new")


def test_the_command_makes_one_for_a_task_with_its_settings(tmp_path, capsys):
    require_gr00t()
    target = tmp_path / "tiny"
    words = ["make-tiny-gr00t", str(target), "--task", "stack", "robot:=ur5e", "--seed", "3"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.strip().endswith(f"wrote {target}")
    checkpoint = read_checkpoint(target)
    assert checkpoint.cameras == ("overview",)
    assert [group.name for group in checkpoint.action] == ["arm", "gripper"]


@pytest.mark.parametrize("words", [["--tusk", "stack"], ["--task"], ["extra"]])
def test_the_command_takes_no_unknown_words(words, tmp_path, capsys):
    try:
        code = cli.main(["make-tiny-gr00t", str(tmp_path / "new"), *words])
    except SystemExit as end:  # argparse's way
        code = end.code
    assert code == cli.MISTAKE and words[0] in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
