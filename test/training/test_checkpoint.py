"""Checkpoints are exact, atomic, and never unpickled."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from grpo_ros.errors import CheckpointError
from grpo_ros.training import checkpoint


def _state():
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {
        "policy": dict(model.state_dict()),
        "algorithm": {"optimiser": optimiser.state_dict(), "learning_rate": 6e-4},
        "iteration": 12,
        "start": {"successes": 5, "wilson_95": [0.1, 0.2]},
        "nothing": None,
    }


def test_state_survives_bit_for_bit(tmp_path):
    state = _state()
    loaded = checkpoint.load_checkpoint(checkpoint.save_checkpoint(tmp_path / "000012", state))
    assert checkpoint.state_hash(loaded) == checkpoint.state_hash(state)
    optimiser = torch.optim.Adam(torch.nn.Linear(3, 2).parameters())
    optimiser.load_state_dict(loaded["algorithm"]["optimiser"])


def test_hash_sees_one_changed_bit():
    state = _state()
    before = checkpoint.state_hash(state)
    state["policy"]["bias"].view(torch.int32)[0] ^= 1
    assert checkpoint.state_hash(state) != before


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "pickle"])
def test_damage_is_named_and_the_checkpoint_before_is_taken(tmp_path, name, damage):
    checkpoint.save_checkpoint(tmp_path / "000001", _state())
    newest = checkpoint.save_checkpoint(tmp_path / "000002", _state())
    file = newest / name
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(pickle.dumps({"state": 1}))
    with pytest.raises(CheckpointError, match="000002"):
        checkpoint.load_checkpoint(newest)
    path, _, skipped = checkpoint.newest_valid(tmp_path)
    assert path == tmp_path / "000001"
    assert len(skipped) == 1 and "000002" in skipped[0]


def test_a_state_that_is_not_finite_is_never_written(tmp_path):
    good = checkpoint.save_checkpoint(tmp_path / "000001", _state())
    state = _state()
    state["policy"]["weight"][0, 0] = float("nan")
    with pytest.raises(CheckpointError, match="weight.*not finite"):
        checkpoint.save_checkpoint(tmp_path / "000002", state)
    assert checkpoint.checkpoints(tmp_path) == [good]


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path / "000001", _state())
    written = checkpoint.load_checkpoint(tmp_path / "000001")

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save_checkpoint(tmp_path / "000001", _state())
    monkeypatch.undo()
    loaded = checkpoint.load_checkpoint(tmp_path / "000001")
    assert checkpoint.state_hash(loaded) == checkpoint.state_hash(written)
    assert [path.name for path in tmp_path.iterdir()] == ["000001"]


def test_a_renaming_that_fails_puts_the_old_checkpoint_back(tmp_path, monkeypatch):
    folder = tmp_path / "best"
    checkpoint.save_checkpoint(folder, _state())
    written = checkpoint.load_checkpoint(folder)
    rename = Path.rename

    def refused(path, target):
        if path.suffix == ".tmp":
            assert not folder.exists(), "the old one has made room"
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(CheckpointError, match="Input/output error"):
        checkpoint.save_checkpoint(folder, {**_state(), "step": -1})
    monkeypatch.undo()
    loaded = checkpoint.load_checkpoint(folder)
    assert checkpoint.state_hash(loaded) == checkpoint.state_hash(written)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_unknown_objects_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="/bad"):
        checkpoint.save_checkpoint(tmp_path / "000001", {"bad": object()})


def test_another_schema_is_refused(tmp_path):
    path = checkpoint.save_checkpoint(tmp_path / "000001", _state())
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(CheckpointError, match="schema 99"):
        checkpoint.load_checkpoint(path)
