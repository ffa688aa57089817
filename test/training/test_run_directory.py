"""Run folders: who holds one, which one is resumed, what a resume cuts back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_ros.errors import TrainingError
from grpo_ros.training import run_directory
from grpo_ros.training.checkpoint import (
    checkpoints,
    drop_unfinished,
    load_checkpoint,
    save_checkpoint,
)


def _run(output, config_hash="h", state="stopped", checkpoint=True, **entries):
    run = run_directory.create_run(output, "task", "grpo", 0)
    if checkpoint:
        run.checkpoints.mkdir()
        save_checkpoint(run.checkpoints / "000001", {"iteration": 1})
    run.set_state(state, config_hash=config_hash, **entries)
    return run


def test_latest_is_a_link_to_the_run_that_was_begun_last_of_those_that_lie_there(tmp_path):
    output = tmp_path / "runs"
    first, second, elsewhere = _run(output), _run(output), _run(tmp_path / "others")
    assert not (output / "latest").exists()
    for run in (second, first):
        run_directory.point_latest(output, run.path)
        assert (output / "latest").resolve() == run.path.resolve()
    run_directory.point_latest(output, elsewhere.path)
    assert (output / "latest").resolve() == first.path.resolve()


def test_newest_unfinished_run_of_the_same_configuration_is_resumed(tmp_path):
    wanted = _run(tmp_path)
    _run(tmp_path, config_hash="other")
    _run(tmp_path, checkpoint=False)
    _run(tmp_path, state="finished")
    found, skipped = run_directory.find_resumable(tmp_path, "task", "grpo", "h")
    assert found == wanted
    assert any("another configuration" in reason for reason in skipped)
    assert any("no checkpoint" in reason for reason in skipped)


HOLD = """
import sys, time
from pathlib import Path
from grpo_ros.training.run_directory import RunDirectory
RunDirectory(Path(sys.argv[1])).hold()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder():
    """Starts a process that holds a run; ended with the test."""
    processes = []

    def start(run):
        command = [sys.executable, "-c", HOLD, str(run.path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_a_run_held_by_a_living_process_is_refused(tmp_path, holder):
    run = _run(tmp_path)
    process = holder(run)
    with pytest.raises(TrainingError, match=f"held by process {process.pid}"):
        run.hold()
    found, skipped = run_directory.find_resumable(tmp_path, "task", "grpo", "h")
    assert found is None and f"held by process {process.pid}" in skipped[0]


def test_a_run_whose_holder_was_killed_can_be_taken(tmp_path, holder):
    run = _run(tmp_path)
    process = holder(run)
    process.kill()
    process.wait()
    assert run.read_json("status.json")["state"] == "running"
    assert run_directory.find_resumable(tmp_path, "task", "grpo", "h")[0] == run
    run.hold()
    assert run.read_json("status.json")["pid"] == os.getpid()
    run.hold()  # it is ours
    run.release()
    run.release()


def test_what_was_released_can_be_held_by_another(tmp_path, holder):
    run = _run(tmp_path)
    run.hold()
    run.release()
    holder(run)
    assert run.is_held_elsewhere


def test_metrics_are_cut_back_to_the_checkpoint_and_torn_lines_dropped(tmp_path):
    run = _run(tmp_path)
    for iteration in range(5):
        run.append(run.metrics, {"iteration": iteration})
    with run.metrics.open("a") as file:
        file.write('{"iteration": 5, "env_st')
    run.cut_back(3)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]


def test_a_run_killed_while_its_only_checkpoint_is_replaced_is_resumed(tmp_path, monkeypatch):
    run = _run(tmp_path)
    rename = Path.rename

    def killed(path, target):
        if path.name.endswith(".tmp"):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(run.checkpoints / "000001", {"iteration": 2})
    assert not checkpoints(run.checkpoints), "it has made room, and the new one is not there yet"
    assert run_directory.find_resumable(tmp_path, "task", "grpo", "h") == (run, [])
    drop_unfinished(run.checkpoints)
    assert load_checkpoint(run.checkpoints / "000001") == {"iteration": 1}


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_kill_while_a_checkpoint_is_replaced_leaves_one(tmp_path, monkeypatch, is_replaced):
    folder = tmp_path / "000000"
    save_checkpoint(folder, {"iteration": 0, "by": "the first"})
    rename = type(folder).rename

    def killed(path, target):
        if path.name.endswith(".tmp"):
            if is_replaced:
                rename(path, target)
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(type(folder), "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder, {"iteration": 0, "by": "the second"})
    monkeypatch.undo()
    drop_unfinished(tmp_path)
    state = load_checkpoint(folder)
    assert state["by"] == ("the second" if is_replaced else "the first")
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]
