"""Folders in our own format: what is read equals what was recorded, or it is said why not."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from demonstration_helpers import ORIGIN, assert_equal, make_simulator, recorded

from grpo_ros.errors import DemonstrationError
from grpo_ros.training.demonstrations import (
    Recording,
    folder_sha256,
    read_demonstrations,
    write_demonstrations,
)
from grpo_ros.training.demonstrations.manifest import file_record

DATA, MANIFEST = "episodes.safetensors", "manifest.json"


@pytest.fixture
def folder(tmp_path):
    recording, contract = recorded("pick_place")
    write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "episodes")
    return tmp_path / "kept"


def _rewrite(folder, **changes):
    """Change tensors, and the manifest so that it agrees."""
    tensors = safetensors.torch.load_file(folder / DATA)
    for name, value in changes.items():
        tensors[name.replace("__", ".")] = value
    safetensors.torch.save_file(tensors, folder / DATA)
    _rehash(folder)


def _rehash(folder, **entries):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][DATA] = dataclasses.asdict(file_record(folder / DATA))
    (folder / MANIFEST).write_text(json.dumps({**manifest, **entries}))


def _refused(folder, match, task="pick_place", *overrides):
    simulator = make_simulator(task, 1, *overrides)
    simulator.close()
    with pytest.raises(DemonstrationError, match=match) as raised:
        read_demonstrations(folder, simulator.contract)
    assert raised.value.remedy or raised.value.expected


@pytest.mark.parametrize("task", ["pick_place", "reach"])
def test_what_is_read_is_what_was_recorded_bit_for_bit(tmp_path, task):
    recording, contract = recorded(task)
    write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "episodes")
    stored = read_demonstrations(tmp_path / "kept", contract)
    assert_equal(stored.recording, recording)
    assert stored.recording.attempts == recording.attempts and stored.format == "episodes"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"], "something is left over"


def test_the_folder_that_one_stands_in_is_written_to(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path / "kept")
    recording, contract = recorded("pick_place")
    write_demonstrations(Path("."), recording, contract, ORIGIN, "episodes")
    assert_equal(read_demonstrations(tmp_path / "kept", contract).recording, recording)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_hash_is_of_the_data_wherever_the_folder_lies(folder, tmp_path):
    before = folder_sha256(folder)
    folder = folder.rename(tmp_path / "moved")
    assert folder_sha256(folder) == before
    _rewrite(folder, action=torch.zeros(recorded("pick_place")[0].num_steps, 5))
    assert folder_sha256(folder) != before


def test_another_chunk_size_is_no_other_recording(folder):
    recording, contract = recorded("pick_place")
    other = dataclasses.replace(contract, chunk_size=9, num_executed=3, horizon=99)
    assert_equal(read_demonstrations(folder, other).recording, recording)


def test_a_folder_that_is_there_is_not_written_over(folder):
    recording, contract = recorded("pick_place")
    before = folder_sha256(folder)
    with pytest.raises(DemonstrationError, match="is there already"):
        write_demonstrations(folder, recording, contract, ORIGIN, "episodes")
    assert folder_sha256(folder) == before


def test_nothing_is_left_of_a_write_that_is_interrupted(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("grpo_ros.training.demonstrations.episodes_format.file_record", interrupt)
    recording, contract = recorded("pick_place")
    with pytest.raises(KeyboardInterrupt):
        write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "episodes")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_folder_of_demonstrations_is_named(tmp_path):
    _refused(tmp_path / "gone", "gone' is no folder")
    _refused(tmp_path, "holds no demonstrations")


def test_a_file_cut_short_or_changed_is_named(folder):
    data = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(data[:-7])
    _refused(folder, f"{DATA} has {len(data) - 7} bytes; expected {len(data)}")
    (folder / DATA).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    _refused(folder, f"{DATA} is damaged")
    (folder / DATA).unlink()
    _refused(folder, f"{DATA}: No such file")


def test_pickled_data_is_not_unpickled(folder):
    class Hostile:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    (folder / DATA).write_bytes(pickle.dumps(Hostile()))
    _rehash(folder)
    _refused(folder, f"{DATA} cannot be read")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "manifest.json is not JSON"),
        ("[]", "has schema None; expected schema 1"),
        ('{"schema": 7}', "has schema 7; expected schema 1"),
        ('{"schema": 1}', "'contract' is missing"),
    ],
)
def test_a_bad_manifest_is_named(folder, text, match):
    (folder / MANIFEST).write_text(text)
    _refused(folder, match)


def test_a_contract_that_was_edited_is_refused(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    _rehash(folder, contract={**manifest["contract"], "chunk_size": 5})
    _refused(folder, "not the one that was recorded for")


def test_a_manifest_cannot_name_files_elsewhere(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    _rehash(folder, files={"../secret": manifest["files"][DATA]})
    _refused(folder, "lists .*secret")


def test_another_task_and_other_settings_are_refused_with_what_differs(folder, tmp_path):
    _refused(folder, "task 'pick_place', wanted 'stack'", "stack")
    _refused(
        folder,
        "no observation 'joint_position'.*actions arm.x, arm.y.*, wanted arm.fr3_joint1",
        "pick_place",
        "task.action=joint_delta",
    )
    recording, contract = recorded("reach")
    write_demonstrations(tmp_path / "images", recording, contract, ORIGIN, "episodes")
    _refused(
        tmp_path / "images",
        r"'top_image' has shape \(64, 64, 3\), wanted \(32, 32, 3\)",
        "reach",
        "task.image_size=[32,32]",
    )


def test_fewer_cameras_may_be_observed_than_were_recorded(tmp_path):
    recording, contract = recorded("reach")
    write_demonstrations(tmp_path / "kept", recording, contract, ORIGIN, "episodes")
    kept = tuple(field for field in contract.observation if field.name != "top_image")
    blind = dataclasses.replace(contract, observation=kept)
    read = read_demonstrations(tmp_path / "kept", blind).recording
    assert set(read.episodes[0].obs) == {"tip_position", "command_error"}
    assert torch.equal(read.episodes[1].action, recording.episodes[1].action)


def test_numbers_that_are_none_are_named_by_episode_step_and_field(folder):
    recording, _ = recorded("pick_place")
    action = torch.cat([episode.action for episode in recording.episodes])
    action[recording.episodes[0].num_steps + 3, 1] = torch.nan
    _rewrite(folder, action=action)
    _refused(folder, "episode 1, step 3: 'action' is not finite")


def test_other_shapes_and_lengths_are_named(folder):
    num = recorded("pick_place")[0].num_steps
    _rewrite(folder, observation__tip_height=torch.zeros(num, 2))
    _refused(folder, r"'tip_height' is .*, 2\).*expected .*, 1\)")
    _rewrite(folder, observation__tip_height=torch.zeros(num - 1, 1))
    _refused(folder, f"expected {num} steps")
    _rewrite(folder, observation__tip_height=torch.zeros(num, 1), num_steps=torch.tensor([num, 0]))
    _refused(folder, "an empty episode")
    _rewrite(folder, num_steps=torch.tensor([num]))
    _refused(folder, "has 1 episodes")


def test_an_empty_recording_is_refused(folder):
    tensors = safetensors.torch.load_file(folder / DATA)
    empty = {name.replace(".", "__"): value[:0] for name, value in tensors.items()}
    _rewrite(folder, **empty)
    _rehash(folder, episodes=0, num_steps=0)
    _refused(folder, "has 0 episodes")


def test_an_empty_recording_is_not_written(tmp_path):
    contract = recorded("pick_place")[1]
    with pytest.raises(DemonstrationError, match="no episodes"):
        write_demonstrations(tmp_path / "kept", Recording((), 3), contract, ORIGIN, "episodes")
    assert not (tmp_path / "kept").exists()
