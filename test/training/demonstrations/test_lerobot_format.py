"""LeRobotDatasets: LeRobot's own class opens what is written; what others recorded is matched."""

import contextlib
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
import torch
from demonstration_helpers import ORIGIN, assert_equal, recorded
from gr00t_helpers import require_gr00t

from grpo_ros.errors import DemonstrationError, MissingExtraError
from grpo_ros.training.demonstrations import (
    default_format,
    folder_sha256,
    lerobot_format,
    read_demonstrations,
    write_demonstrations,
)

require_gr00t()
MANIFEST = lerobot_format.MANIFEST
FILE = "chunk-000/file-000.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder of each task's dataset; tests copy them."""
    root, folders = tmp_path_factory.mktemp("lerobot"), {}

    def write(task):
        if task not in folders:
            recording, contract = recorded(task)
            write_demonstrations(root / task, recording, contract, ORIGIN, "lerobot")
            folders[task] = root / task
        return folders[task]

    return write


@pytest.fixture
def folder(written, tmp_path):
    """A copy of the dataset of pick_place, which may be damaged."""
    return shutil.copytree(written("pick_place"), tmp_path / "copy")


def _opened(folder):
    with lerobot_format.opened() as lerobot:
        return lerobot.LeRobotDataset("somebody/something", root=folder)


def _edit_info(folder, edit, keeps_manifest=False):
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))
    if not keeps_manifest:
        (folder / MANIFEST).unlink()


def _foreign(folder, features, frames, fps=20, text="Do it."):
    """Write a dataset as somebody else would, without anything of ours."""
    with lerobot_format.opened() as lerobot:
        dataset = lerobot.LeRobotDataset.create(
            "somebody/else", fps=fps, features=features, root=folder, use_videos=False
        )
        for episode in frames:
            for frame in episode:
                dataset.add_frame({"task": text, **frame})
            dataset.save_episode()
        dataset.finalize()
    return folder


def _refused(folder, contract, match):
    with pytest.raises(DemonstrationError, match=match) as raised:
        read_demonstrations(folder, contract)
    assert raised.value.remedy or raised.value.expected


@pytest.mark.parametrize("task", ["pick_place", "reach"])
def test_what_is_read_is_what_was_recorded_bit_for_bit(written, task):
    recording, contract = recorded(task)
    stored = read_demonstrations(written(task), contract)
    assert_equal(stored.recording, recording)
    assert stored.format == "lerobot" and stored.recording.attempts == recording.attempts


def test_lerobots_own_class_opens_it_and_finds_what_others_train_on(written):
    recording, contract = recorded("reach")
    dataset = _opened(written("reach"))
    episode = recording.episodes[0]
    frame = dataset[episode.num_steps - 1]
    assert (dataset.fps, dataset.num_episodes) == (20, 2)
    assert len(dataset) == recording.num_steps and frame["task"] == contract.instruction
    assert dataset.features["observation.state"]["names"] == [
        *(f"tip_position.{axis}" for axis in "xyz"),
        *(f"command_error.{axis}" for axis in "xyz"),
    ]
    assert dataset.features["action"]["names"] == ["arm.x", "arm.y", "arm.z", "arm.yaw"]
    assert torch.equal(frame["observation.state"][:3], episode.obs["tip_position"][-1])
    scale = torch.tensor(contract.action[0].scale)
    assert torch.equal(frame["action"], episode.action[-1] * scale), "SI units"
    image = (frame["observation.images.top"] * 255.0).round().to(torch.uint8)
    assert torch.equal(image.permute(1, 2, 0), episode.obs["top_image"][-1])


def test_lerobot_takes_label_and_executed_action_for_no_input_of_a_policy(written):
    from lerobot.utils.feature_utils import dataset_to_policy_features

    found = dataset_to_policy_features(_opened(written("reach")).features)
    assert set(found) == {"observation.state", "observation.images.top", "action"}


def test_modality_json_slices_state_and_action_by_field(written):
    modality = json.loads((written("reach") / "meta" / "modality.json").read_text())
    assert modality["state"] == {
        "tip_position": {"start": 0, "end": 3},
        "command_error": {"start": 3, "end": 6},
    }
    assert modality["action"] == {"arm": {"start": 0, "end": 4}}
    assert modality["video"] == {"top": {"original_key": "observation.images.top"}}
    assert modality["annotation"] == {"human.task_description": {"original_key": "task_index"}}


def test_videos_are_close_to_what_was_seen_and_numbers_exact(tmp_path):
    recording, contract = recorded("reach")
    noise = io.StringIO()
    with contextlib.redirect_stderr(noise):
        write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "lerobot", True)
    read = read_demonstrations(tmp_path / "kept", contract).recording
    for one, other in zip(recording.episodes, read.episodes, strict=True):
        assert torch.equal(one.action, other.action)
        assert torch.equal(one.obs["tip_position"], other.obs["tip_position"])
        images = [episode.obs["top_image"].float() for episode in (one, other)]
        assert images[0].shape == images[1].shape
        assert (images[0] - images[1]).abs().mean() < 4.0


def test_without_our_manifest_it_is_read_all_the_same(folder):
    recording, contract = recorded("pick_place")
    before = folder_sha256(folder)
    (folder / MANIFEST).unlink()
    assert_equal(read_demonstrations(folder, contract).recording, recording)
    assert folder_sha256(folder) == before


def test_the_hash_changes_with_the_data(folder):
    before = folder_sha256(folder)
    path = folder / "data" / FILE
    path.write_bytes(path.read_bytes() + b" ")
    assert folder_sha256(folder) != before


# ---------------------------------------------------------------- damaged


@pytest.mark.parametrize("name", [f"data/{FILE}", f"meta/episodes/{FILE}", "meta/tasks.parquet"])
@pytest.mark.parametrize("has_manifest", [True, False])
def test_a_table_cut_short_or_absent_is_named(folder, name, has_manifest):
    contract = recorded("pick_place")[1]
    if not has_manifest:
        (folder / MANIFEST).unlink()
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    _refused(folder, contract, f"{name} .*expected")
    path.unlink()
    _refused(folder, contract, "expected")


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda info: info.update(codebase_version="v2.1"), "version v2.1; expected v3.*convert"),
        (lambda info: info.update(fps=30), "30 steps per second, wanted 20"),
        (lambda info: info.update(total_frames=0), "is empty"),
        (lambda info: info.update(total_frames=9999), "expected 9999"),
        (lambda info: info.pop("features"), "info.json cannot be read: KeyError"),
        (
            lambda info: info["features"]["label"].update(names=list("abcde")),
            None,
        ),
        (
            lambda info: [
                info["features"].pop("label"),
                info["features"]["action"].update(names=list("abcde")),
            ],
            "action has names a, b, c, d, e; wanted arm.x, arm.y, arm.z, arm.yaw, gripper",
        ),
        (
            lambda info: info["features"]["observation.state"]["names"].__setitem__(0, "z"),
            "no tip_height in the names of observation.state",
        ),
    ],
    ids=["version", "rate", "empty", "frames", "features", "label", "action", "state"],
)
def test_an_edited_description_is_refused_with_the_difference(folder, edit, match):
    contract = recorded("pick_place")[1]
    _edit_info(folder, edit)
    if match is None:  # without a label the action in SI units is there: equal, but for rounding
        read = read_demonstrations(folder, contract).recording.episodes[0].action
        assert torch.allclose(read, recorded("pick_place")[0].episodes[0].action, atol=1e-6)
        return
    _refused(folder, contract, match)


def test_a_dataset_edited_after_it_was_recorded_says_how_to_go_on(folder):
    _edit_info(folder, lambda info: info.update(robot_type="mine, really"), keeps_manifest=True)
    _refused(folder, recorded("pick_place")[1], f"info.json.*delete {MANIFEST}")


# ---------------------------------------------------------------- recorded by somebody else


def _toy(contract, **changes):
    """Features and frames that fit the task reach, in an order of their own."""
    state = ["command_error.z", "command_error.y", "command_error.x", "battery"]
    action = ["arm.yaw", "arm.z", "arm.y", "arm.x"]
    features = {
        "observation.state": {"dtype": "float32", "shape": (4,), "names": {"motors": state}},
        "observation.tip": {
            "dtype": "float32",
            "shape": (3,),
            "names": [f"tip_position.{axis}" for axis in "xyz"],
        },
        "observation.images.top_image": {
            "dtype": "image",
            "shape": (64, 64, 3),
            "names": ["height", "width", "channels"],
        },
        "action": {"dtype": "float32", "shape": (4,), "names": action},
        **changes,
    }
    source = np.random.default_rng(0)
    scale = np.array(contract.action[0].scale, dtype=np.float32)[::-1]
    frames = [
        [
            {
                "observation.state": source.normal(size=4).astype(np.float32),
                "observation.tip": source.normal(size=3).astype(np.float32),
                "observation.images.top_image": source.integers(
                    0, 256, features["observation.images.top_image"]["shape"], dtype=np.uint8
                ),
                "action": source.uniform(-1, 1, 4).astype(np.float32) * scale,
            }
            for _ in range(5)
        ]
        for _ in range(2)
    ]
    return features, frames


def test_a_foreign_dataset_is_matched_by_names_and_read_in_si_units(tmp_path):
    contract = recorded("reach")[1]
    features, frames = _toy(contract)
    read = read_demonstrations(_foreign(tmp_path / "kept", features, frames), contract).recording
    assert [episode.num_steps for episode in read.episodes] == [5, 5]
    frame, episode = frames[1][2], read.episodes[1]
    assert episode.obs["command_error"][2].tolist() == frame["observation.state"][2::-1].tolist()
    assert episode.obs["tip_position"][2].tolist() == frame["observation.tip"].tolist()
    assert np.array_equal(
        episode.obs["top_image"][2].numpy(), frame["observation.images.top_image"]
    )
    wanted = frame["action"][::-1] / np.array(contract.action[0].scale, dtype=np.float32)
    assert np.allclose(episode.action[2].numpy(), wanted, atol=1e-6)


def test_foreign_actions_of_another_unit_are_refused(tmp_path):
    contract = recorded("reach")[1]
    features, frames = _toy(contract)
    frames[0][3]["action"][3] = 12.5
    folder = _foreign(tmp_path / "kept", features, frames)
    _refused(folder, contract, r"'arm.x' is up to 12.5 \(first beyond in row 3\).*SI units")


def test_foreign_numbers_that_are_none_are_named(tmp_path):
    contract = recorded("reach")[1]
    features, frames = _toy(contract)
    frames[1][2]["action"][0] = np.nan
    folder = _foreign(tmp_path / "kept", features, frames)
    _refused(folder, contract, "episode 1, step 2: 'action' is not finite")


def test_a_foreign_image_of_another_size_is_refused(tmp_path):
    contract = recorded("reach")[1]
    small = {"dtype": "image", "shape": (32, 48, 3), "names": ["height", "width", "channels"]}
    features, frames = _toy(contract, **{"observation.images.top_image": small})
    folder = _foreign(tmp_path / "kept", features, frames)
    _refused(folder, contract, r"image \(32, 48, 3\), wanted an image \(64, 64, 3\)")


def test_of_several_tasks_the_episodes_of_the_instruction_are_read(tmp_path):
    contract = recorded("reach")[1]
    features, frames = _toy(contract)
    for frame in frames[1]:
        frame["task"] = contract.instruction
    folder = _foreign(tmp_path / "kept", features, frames)
    read = read_demonstrations(folder, contract).recording
    assert len(read.episodes) == 1
    assert read.episodes[0].obs["tip_position"][0].tolist() == (
        frames[1][0]["observation.tip"].tolist()
    )
    other = dataclasses.replace(contract, instruction="Sing.")
    _refused(folder, other, "holds the tasks 'Do it.', 'Touch.*expected one task, or 'Sing.'")


# ---------------------------------------------------------------- not possible


def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    recording, contract = recorded("pick_place")
    odd = dataclasses.replace(contract, control_rate_hz=12.5)
    with pytest.raises(DemonstrationError, match="12.5 control.*whole number.*--format episodes"):
        write_demonstrations(tmp_path / "kept", recording, odd, ORIGIN, "lerobot")
    assert list(tmp_path.iterdir()) == []


def test_without_lerobot_our_own_format_is_the_default_and_theirs_says_what_to_do(
    folder, tmp_path, monkeypatch
):
    assert default_format() == "lerobot"
    monkeypatch.setattr(lerobot_format, "PACKAGES", ("no_such_package",))
    assert default_format() == "episodes"
    recording, contract = recorded("pick_place")
    with pytest.raises(MissingExtraError, match="needs no_such_package; `make setup EXTRAS=gr00t"):
        write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "lerobot")
    monkeypatch.setitem(__import__("sys").modules, "lerobot.datasets.lerobot_dataset", None)
    with pytest.raises(
        MissingExtraError, match="A LeRobotDataset needs the package lerobot.*make"
    ):
        read_demonstrations(folder, contract)
