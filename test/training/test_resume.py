"""Which run is gone on with: one of the same settings, task file and robot, wherever it lies."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from grpo_ros.configuration import load_config, merge, read_layer, to_yaml
from grpo_ros.errors import CheckpointError, TrainingError
from grpo_ros.robots.robot import load_robot
from grpo_ros.tasks import registry
from grpo_ros.tasks.reach import Reach
from grpo_ros.training.checkpoint import save_checkpoint
from grpo_ros.training.export_run import export_checkpoint
from grpo_ros.training.resume import open_run, run_hash
from grpo_ros.training.settings import TrainConfig

TASK = """
from grpo_ros.tasks.reach import Reach
class Mine(Reach):
    name = "mine"
TASK = Mine
"""


def stopped_run(output, *settings):
    config = load_config(["task=reach", f"output={output}", "resume=never", *settings])
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


def test_an_edited_mesh_is_another_configuration(tmp_path):
    folder = tmp_path / "my_arm"
    shutil.copytree(load_robot("franka_fr3").urdf_path.parent, folder)
    path = folder / load_robot("franka_fr3").urdf_path.name
    visual = '<visual><geometry><mesh filename="{}.stl"/></geometry></visual>'
    link = re.search(r"<link name=[^/>]*>", path.read_text()).group()
    meshes = visual.format("hull") + visual.format("not_there")
    path.write_text(path.read_text().replace(link, link + meshes))
    hashes = []
    for content in (b"one", b"two", b"one"):
        (folder / "hull.stl").write_bytes(content)
        hashes.append(run_hash(load_config(["task=reach", f"robot={folder}"])))
    assert hashes[0] == hashes[2] != hashes[1]


def test_other_weights_in_the_checkpoint_s_folder_are_another_configuration(tmp_path):
    """A run keeps only what it trains of a GR00T: beside other weights it would be another one."""
    folder = tmp_path / "checkpoint"
    (folder / "tokenizer").mkdir(parents=True)
    config = load_config(["task=reach", "policy=gr00t", f"policy_path={folder}"])
    hashes = [run_hash(config)]
    for name in ("model-00001-of-00001.safetensors", "statistics.json", "tokenizer/vocab.json"):
        (folder / name).write_bytes(b"{}")
        hashes.append(run_hash(config))
    assert len(set(hashes)) == 4
    (folder / "README.md").write_text("not read")
    assert run_hash(config) == hashes[-1]


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr("grpo_ros.training.resume.file_record", refuse)
    with pytest.raises(TrainingError, match=r"config\.json: Permission denied"):
        run_hash(load_config(["task=reach", "policy=gr00t", f"policy_path={tmp_path}"]))


def test_a_checkpoint_is_not_exported_for_a_robot_that_was_edited(tmp_path):
    folder = tmp_path / "my_arm"
    shutil.copytree(load_robot("franka_fr3").urdf_path.parent, folder)
    run = stopped_run(tmp_path / "runs", f"robot={folder}", "task.cameras=[]")
    config = merge(TrainConfig, [read_layer(run.path / "config.yaml")])
    contract = Reach(config.reach).contract()
    (run.path / "contract.json").write_text(contract.to_json())
    with pytest.raises(KeyError, match="policy"):  # of the state, which is loaded
        export_checkpoint(run.path, "", None)
    path = folder / "robot.urdf"
    path.write_text(path.read_text().replace('xyz="0 0 0.107"', 'xyz="0 0 0.117"'))
    with pytest.raises(CheckpointError, match="another robot or task.*robot_sha256 is .*restore"):
        export_checkpoint(run.path, "", None)
    (run.path / "contract.json").unlink()
    with pytest.raises(CheckpointError, match="no contract.json"):
        export_checkpoint(run.path, "", None)
    assert not run.policy.exists()


def test_a_runs_settings_are_those_that_it_chose_and_files_with_all_are_read_as_well(tmp_path):
    settings = ["task=reach", "algorithm=hybrid", "task.goal_radius_m=0.03", "ppo.discount=0.9"]
    config = load_config([*settings, f"output={tmp_path}", "resume=never"])
    path = open_run(config, lambda _: None).run.path / "config.yaml"
    written = yaml.safe_load(path.read_text())
    assert {"reach", "hybrid", "grpo", "ppo", "gaussian", "mujoco"} <= set(written)
    assert not {"stack", "pick_place", "flow", "gr00t", "isaaclab"} & set(written)
    assert merge(TrainConfig, [read_layer(path)]) == config
    path.write_text(to_yaml(config))
    assert merge(TrainConfig, [read_layer(path)]) == config


def test_a_run_that_was_moved_is_resumed_by_name(tmp_path):
    run = stopped_run(tmp_path / "runs")
    moved = Path(shutil.move(run.path, tmp_path / "a" / "b"))
    said = []
    config = load_config(["task=reach", f"output={tmp_path / 'runs'}", f"resume={moved}"])
    found = open_run(config, said.append)
    assert found.run.path == moved and found.state == {"iteration": 1}
    other = load_config(["task=reach", "seed=5", f"resume={moved}"])
    with pytest.raises(TrainingError, match="another configuration; expected its settings"):
        open_run(other, said.append)
