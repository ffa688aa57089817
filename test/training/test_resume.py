"""Which run is gone on with: one of the same settings, task file and robot, wherever it lies."""

import shutil
from pathlib import Path

import pytest

from grpo_ros.configuration import load_config
from grpo_ros.errors import TrainingError
from grpo_ros.robots.robot import load_robot
from grpo_ros.tasks import registry
from grpo_ros.training.checkpoint import save_checkpoint
from grpo_ros.training.resume import open_run, run_hash

TASK = """
from grpo_ros.tasks.reach import Reach
class Mine(Reach):
    name = "mine"
TASK = Mine
"""


def stopped_run(output):
    config = load_config(["task=reach", f"output={output}", "resume=never"])
    run = open_run(config, lambda _: None).run
    run.checkpoints.mkdir()
    save_checkpoint(run.checkpoints / "000001", {"iteration": 1})
    run.set_state("stopped", config_hash=run_hash(config))
    return run


def test_an_edited_task_file_is_another_configuration(tmp_path, monkeypatch):
    hashes = []
    for text in (TASK, TASK + "# wider\n", TASK):
        (tmp_path / "mine.py").write_text(text)
        monkeypatch.setitem(registry.TASKS, "reach", registry.find_tasks([tmp_path])["mine"])
        hashes.append(run_hash(load_config(["task=reach"])))
    assert hashes[0] == hashes[2] != hashes[1]


def test_an_edited_robot_is_another_configuration(tmp_path):
    folder = tmp_path / "my_arm"
    shutil.copytree(load_robot("franka_fr3").urdf_path.parent, folder)
    config = load_config(["task=reach", f"robot={folder}"])
    before = run_hash(config)
    assert run_hash(config) == before
    path = folder / load_robot("franka_fr3").urdf_path.name
    path.write_text(path.read_text() + "<!-- heavier -->\n")
    assert run_hash(config) != before


def test_a_run_that_was_moved_is_resumed_by_name_and_no_link_is_made_where_it_lies(tmp_path):
    run = stopped_run(tmp_path / "runs")
    moved = Path(shutil.move(run.path, tmp_path / "a" / "b"))
    said = []
    config = load_config(["task=reach", f"output={tmp_path / 'runs'}", f"resume={moved}"])
    found = open_run(config, said.append)
    assert found.run.path == moved and found.state == {"iteration": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "runs"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    other = load_config(["task=reach", "seed=5", f"resume={moved}"])
    with pytest.raises(TrainingError, match="another configuration; expected its settings"):
        open_run(other, said.append)


def test_the_link_to_the_latest_run_is_moved_to_the_one_that_is_gone_on_with(tmp_path):
    first, second = stopped_run(tmp_path), stopped_run(tmp_path)
    assert (tmp_path / "latest").resolve() == second.path.resolve()
    config = load_config(["task=reach", f"output={tmp_path}", f"resume={first.path}"])
    open_run(config, lambda _: None)
    assert (tmp_path / "latest").resolve() == first.path.resolve()
