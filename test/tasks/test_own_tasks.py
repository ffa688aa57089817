"""A user's own task: docs/how-to/add_a_task.md works as it is written, mistakes are named."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_ros.errors import ConfigurationError
from grpo_ros.simulators import conformance
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.folders import task_folders
from grpo_ros.tasks.registry import TASKS, find_tasks

ROOT = Path(__file__).parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "add_a_task.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The how-to's two files, as a user would write them."""
    folder = tmp_path_factory.mktemp("my_tasks")
    for suffix, language in ((".py", "python"), (".yaml", "yaml")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", HOW_TO, re.S)
        (folder / f"hover{suffix}").write_text(block)
    return folder


def _grpo_ros(folder, cwd, *words):
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "GRPO_ROS_TASKS": str(folder), "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", "grpo_ros.cli", *words],
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_the_how_to_trains_a_policy_that_an_evaluation_finds_again(folder, tmp_path):
    done = _grpo_ros(folder, tmp_path, "train", "task:=hover", "film:=false")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "latest"
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["episodes"] == 200 and evaluation["successes"] >= 190
    again = _grpo_ros(folder, tmp_path, "evaluate", str(run / "policy.onnx"), "--episodes", "20")
    assert again.returncode == 0 and "success" in again.stdout, again.stderr
    assert "hover: Move the gripper" in _grpo_ros(folder, tmp_path, "tasks").stdout


@pytest.mark.parametrize(
    ("robot", "action"),
    [("so101", "joint_delta"), ("ur5e", "joint_delta"), ("ur5e", "cartesian_delta")],
)
def test_the_how_tos_demonstrator_succeeds_on_other_arms(folder, demonstrated, robot, action):
    hover = find_tasks([folder])["hover"]
    task = hover(hover.Config(robot=robot, action=action))
    assert demonstrated(task, episodes=64) >= 0.98


@pytest.mark.slow
def test_a_policy_for_five_joints_is_trained_with_the_how_tos_task(folder, tmp_path):
    words = ("task:=hover", "task.robot:=so101", "task.action:=joint_delta", "film:=false")
    done = _grpo_ros(folder, tmp_path, "train", *words)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "latest"
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["episodes"] == 200 and evaluation["successes"] >= 180


def test_five_joints_are_not_led_by_cartesian_delta(folder):
    hover = find_tasks([folder])["hover"]
    task = hover(hover.Config(robot="so101"))
    with pytest.raises(
        ConfigurationError, match="'cartesian_delta' with robot 'so101' of 5.*joint"
    ):
        task.contract()


def test_the_how_tos_task_conforms(folder):
    task = find_tasks([folder])["hover"]()
    results = conformance.run_conformance(lambda num_envs: MujocoSimulator(task, num_envs))
    assert all(result.passed for result in results), results


MISTAKES = {
    "import nonsense_entirely": "cannot be imported: ModuleNotFoundError",
    "x = 1": "has no TASK",
    "class T:\n    name = 'x'\nTASK = T": "T lacks instruction, Config, bodies",
    "from grpo_ros.tasks.arm_task import ArmTask\n"
    "class T(ArmTask):\n    name, instruction = 'x', 'do x'\n    def bodies(self): ...\n"
    "TASK = T": "T lacks demonstrate_tip, object_fields, outcome, potential, sample;",
    "import dataclasses\nfrom grpo_ros.tasks.reach import Reach, ReachConfig\n"
    "@dataclasses.dataclass(frozen=True, kw_only=True)\n"
    "class C(ReachConfig):\n    depth_m: float\n"
    "class T(Reach):\n    name, Config = 'x', C\nTASK = T": r"C\(\) is not .*'depth_m'.*default",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_file_that_holds_no_task_is_named(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigurationError, match=MISTAKES[text]) as found:
        find_tasks([tmp_path])
    assert "mine.py" in str(found.value)


def test_files_that_begin_with_an_underscore_are_no_tasks(folder, tmp_path):
    for name in ("__init__.py", "_shared.py"):
        (tmp_path / name).write_text("raise RuntimeError")
    (tmp_path / "hover.py").write_text((folder / "hover.py").read_text())
    assert set(find_tasks([tmp_path])) == {*find_tasks([]), "hover"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "capsule"}, "'marker' has shape 'capsule'; expected box | cylinder | sphere"),
        ({"motion": "dynamc"}, "'marker' has motion 'dynamc'.*did you mean 'dynamic'"),
        ({"size": (0.1, 0.1)}, "'marker', a sphere, has 2 sizes; expected 1"),
    ],
)
def test_a_body_that_no_simulator_makes_is_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Body(**{"name": "marker", "shape": "sphere", "size": (0.1,), **change})


def test_a_taken_name_and_a_missing_folder_are_refused(folder, tmp_path, monkeypatch):
    text = (folder / "hover.py").read_text().replace('name = "hover"', 'name = "navigate"')
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigurationError, match="'navigate' already"):
        find_tasks([tmp_path])
    with pytest.raises(ConfigurationError, match="'/nowhere'"):
        find_tasks([Path("/nowhere")])
    monkeypatch.setenv("GRPO_ROS_TASKS", f"/one{os.pathsep}/two")
    assert task_folders() == [Path("/one"), Path("/two")]


def test_without_folders_there_are_the_packages_own_tasks():
    names = ("pick_place", "stack", "insert", "reach", "navigate")
    assert find_tasks([]) == {name: TASKS[name] for name in names}
