"""Run folders: who holds one, which one is resumed, what a resume cuts back."""

import json
import os
import socket

import pytest

from grpo_ros.errors import TrainingError
from grpo_ros.training import run_directory
from grpo_ros.training.checkpoint import save_checkpoint


def _run(output, config_hash="h", state="stopped", checkpoint=True, **entries):
    run = run_directory.create_run(output, "task", "grpo", 0)
    if checkpoint:
        run.checkpoints.mkdir()
        save_checkpoint(run.checkpoints / "000001", {"iteration": 1})
    run.set_state(state, config_hash=config_hash, **entries)
    return run


def test_latest_points_to_the_newest_run(tmp_path):
    _run(tmp_path)
    second = _run(tmp_path)
    assert (tmp_path / "latest").resolve() == second.path.resolve()


def test_newest_unfinished_run_of_the_same_configuration_is_resumed(tmp_path):
    wanted = _run(tmp_path)
    _run(tmp_path, config_hash="other")
    _run(tmp_path, checkpoint=False)
    _run(tmp_path, state="finished")
    found, skipped = run_directory.find_resumable(tmp_path, "task", "grpo", "h")
    assert found == wanted
    assert any("another configuration" in reason for reason in skipped)
    assert any("no checkpoint" in reason for reason in skipped)


def test_a_run_held_by_a_living_process_is_refused(tmp_path):
    run = _run(tmp_path)
    holder = {"state": "running", "pid": os.getppid(), "host": socket.gethostname()}
    run.write_json("status.json", {"config_hash": "h", **holder})
    with pytest.raises(TrainingError, match=f"process {os.getppid()}"):
        run.hold()
    found, skipped = run_directory.find_resumable(tmp_path, "task", "grpo", "h")
    assert found is None and "held by process" in skipped[0]


def test_a_run_whose_holder_died_can_be_taken(tmp_path):
    run = _run(tmp_path)
    holder = {"state": "running", "pid": 2**22 + 1, "host": socket.gethostname()}
    run.write_json("status.json", {"config_hash": "h", **holder})
    run.hold()
    assert run.read_json("status.json")["pid"] == os.getpid()


def test_metrics_are_cut_back_to_the_checkpoint_and_torn_lines_dropped(tmp_path):
    run = _run(tmp_path)
    for iteration in range(5):
        run.append(run.metrics, {"iteration": iteration})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 5, "env_st')
    run.cut_back(3)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
