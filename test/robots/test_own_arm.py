"""A user's own arm: docs/how-to/add_your_own_arm.md works as it is written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from grpo_ros.configuration import load_config
from grpo_ros.contract import TASK_SETTINGS, Contract
from grpo_ros.deployment.matching import trained_robot
from grpo_ros.errors import RobotError
from grpo_ros.robots import LinkClearance, Robot, load_robot
from grpo_ros.robots.description import Interfaces, RobotDescription, Safety
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.reach import Reach
from grpo_ros.tasks.registry import find_tasks
from grpo_ros.training.evaluation import held_out_keys
from grpo_ros.training.run_terms import origin_of

ROOT = Path(__file__).parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "add_your_own_arm.md").read_text()
ADD_A_TASK = (ROOT / "docs" / "how-to" / "add_a_task.md").read_text()


def block(text: str, language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    return str(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The how-to's folder, and the task of add_a_task.md beside it."""
    parent = tmp_path_factory.mktemp("mine")
    (parent / "desk_arm").mkdir()
    (parent / "desk_arm" / "robot.urdf").write_text(block(HOW_TO, "xml"))
    (parent / "desk_arm" / "robot.yaml").write_text(block(HOW_TO, "yaml"))
    (parent / "hover.py").write_text(block(ADD_A_TASK, "python"))
    return parent


@pytest.fixture(scope="module")
def robot(folder: Path) -> Robot:
    return load_robot(folder / "desk_arm")


def success_of_demonstrator(task: Task) -> float:
    simulator = MujocoSimulator(task, 64)
    keys = held_out_keys(64)
    simulator.reset(task.sample(keys), None, keys)
    for _ in range(task.horizon):
        action = task.demonstrate(simulator.scene(), simulator.controller_state())
        result = simulator.step(action.unsqueeze(1).float())
    simulator.close()
    assert torch.isfinite(result.score).all()
    return float(result.outcome.float().mean())


def test_the_how_to_fits_a_page_and_its_arm_loads(robot: Robot) -> None:
    assert len(HOW_TO.splitlines()) <= 110
    assert robot.arm_joints == ("turn", "lift", "bend", "nod") and robot.gripper_unit == "m"
    for axis, place in zip("xyz", robot.chain.forward(robot.home[None, :4])[0][0], strict=True):
        low, high = robot.workspace[axis]
        assert low < place < high


def test_every_key_of_the_how_tos_yaml_is_one_of_the_description() -> None:
    written = yaml.safe_load(block(HOW_TO, "yaml"))
    assert set(written) <= set(RobotDescription.__dataclass_fields__)
    assert set(RobotDescription.__dataclass_fields__) <= set(written)
    for key, kind in (("interfaces", Interfaces), ("safety", Safety)):
        assert set(written[key]) <= set(kind.__dataclass_fields__)
    for name in re.findall(r"`(?:interfaces\.)?(gripper_\w+)`", HOW_TO):
        assert name in Interfaces.__dataclass_fields__


def test_the_how_tos_checks_print_sound_figures(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", block(HOW_TO, "python")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\w+) \[(.*?)\]", done.stdout, re.M))
    assert set(found) == {"tip", "manipulability", "table", "links"}
    assert float(found["manipulability"]) > 0.001
    assert float(found["table"]) > 0.05 and float(found["links"]) > 0.01


def test_the_how_tos_arm_does_not_touch_itself_at_home(robot: Robot) -> None:
    clearance = LinkClearance(robot)
    assert ("column", "forearm") in clearance.pairs and "hand" not in clearance.above_table


def test_the_how_tos_arm_is_led_to_the_markers_of_add_a_task(folder: Path) -> None:
    hover = find_tasks([folder])["hover"]
    task = hover(hover.Config(robot=str(folder / "desk_arm"), action="joint_delta"))
    assert success_of_demonstrator(task) >= 0.95


def test_an_arm_that_slides_is_moved_by_steps_in_m(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "desk_arm", tmp_path / "desk_arm")
    urdf = tmp_path / "desk_arm" / "robot.urdf"
    text = urdf.read_text().replace('"turn" type="revolute"', '"turn" type="prismatic"')
    slides = text.replace('<axis xyz="0 0 1"/>', '<axis xyz="0 1 0"/>', 1)
    urdf.write_text(slides.replace('lower="-2.6" upper="2.6"', 'lower="-0.3" upper="0.3"'))
    hover = find_tasks([folder])["hover"]
    task = hover(hover.Config(robot=str(urdf.parent), action="joint_delta"))
    (arm,) = task.contract().action
    assert arm.scale == (task.config.step_m, *[task.config.step_rad] * 3) and arm.unit == "m, rad"
    assert task.contract().field("joint_position").unit == "m, rad"
    assert success_of_demonstrator(task) >= 0.95


def test_an_arm_turns_on_a_continuous_joint_in_mujoco(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "desk_arm", tmp_path / "desk_arm")
    urdf = tmp_path / "desk_arm" / "robot.urdf"
    urdf.write_text(urdf.read_text().replace('"turn" type="revolute"', '"turn" type="continuous"'))
    hover = find_tasks([folder])["hover"]
    task = hover(hover.Config(robot=str(urdf.parent), action="joint_delta"))
    simulator = MujocoSimulator(task, 1)
    keys = held_out_keys(1)
    simulator.reset(task.sample(keys), None, keys)
    forward = torch.zeros(1, 1, task.contract().action_size)
    forward[..., 0] = 1.0
    start = simulator.scene().joint_position[0, 0].item()
    for _ in range(20):
        simulator.step(forward)
    turned = simulator.scene().joint_position[0, 0].item() - start
    target = simulator.controller_state()["target"][0, 0].item()
    simulator.close()
    assert turned > 0.1 and target == pytest.approx(start + turned, abs=0.3)
    assert Contract.from_json(task.contract().to_json()) == task.contract()


def test_a_policy_of_an_own_arm_finds_it_again_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: deployed in simulation, the arm was looked for under its name alone."""
    shutil.copytree(load_robot("ur5e").urdf_path.parent, tmp_path / "arm")
    described = tmp_path / "arm" / "robot.yaml"
    described.write_text(described.read_text().replace("name: ur5e", "name: mine", 1))
    monkeypatch.chdir(tmp_path)
    config = load_config(["task=reach", "task.robot=arm"])
    assert config.reach.robot == str(tmp_path / "arm")
    origin = json.loads(json.dumps(origin_of(config, 0)))
    contract = dataclasses.replace(Reach(config.reach).contract(), provenance=origin)
    monkeypatch.chdir("/")
    assert contract.embodiment == "mine"
    assert trained_robot(contract).urdf_path.parent == tmp_path / "arm"
    with pytest.raises(RobotError, match="no robot 'mine'"):
        trained_robot(dataclasses.replace(contract, provenance={TASK_SETTINGS: {"robot": 3}}))
