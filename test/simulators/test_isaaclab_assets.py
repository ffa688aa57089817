"""What Isaac Sim's importer is handed of a robot."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from grpo_ros.errors import MissingExtraError, RobotError
from grpo_ros.robots import load_robot
from grpo_ros.robots.robot import ROBOTS_DIRECTORY
from grpo_ros.simulators.isaaclab import app, assets

MESH = '<visual><geometry><mesh filename="package://arm/hand.stl"/></geometry></visual>'


@pytest.fixture
def handed(monkeypatch, tmp_path):
    """Texts of the files that were handed to the importer, which makes an empty USD."""
    texts = []

    def convert(source, folder):
        texts.append(source.read_text())
        folder.mkdir()
        (folder / assets.MARK).write_text("robot.usda")

    monkeypatch.setattr(assets, "_convert", convert)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return texts


@pytest.fixture
def robot(tmp_path):
    """A robot whose hand has a mesh of a package, which the importer would leave out."""
    source, folder = ROBOTS_DIRECTORY / "franka_fr3", tmp_path / "robot"
    folder.mkdir()
    (folder / "robot.yaml").write_bytes((source / "robot.yaml").read_bytes())
    text, link = (source / "robot.urdf").read_text(), '<link name="fr3_hand">'
    assert link in text
    (folder / "robot.urdf").write_text(text.replace(link, link + MESH))
    return load_robot(folder)


def test_the_importer_is_told_where_every_mesh_is(handed, robot):
    there = robot.urdf_path.parent / "arm" / "hand.stl"
    there.parent.mkdir()
    there.write_bytes(b"")
    assert assets.robot_usd(robot).name == "robot.usda"
    (mesh,) = ElementTree.fromstring(handed[0]).iter("mesh")
    assert Path(mesh.attrib["filename"]) == there


def test_a_robot_is_converted_again_once_a_mesh_of_it_is_another(handed, robot):
    there = robot.urdf_path.parent / "arm" / "hand.stl"
    there.parent.mkdir()
    for content in (b"one", b"one", b"two"):
        there.write_bytes(content)
        assets.robot_usd(robot)
    assert len(handed) == 2


def test_a_mesh_that_is_not_there_is_named_before_anything_is_converted(handed, robot):
    with pytest.raises(RobotError, match=r"no mesh file 'package://arm/hand\.stl'"):
        assets.robot_usd(robot)
    assert not handed


def test_where_no_package_of_isaac_sim_is_its_importer_is_named(monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("isaacsim.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "isaacsim", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not app.has_module("isaacsim.simulation_app")
    with pytest.raises(MissingExtraError, match="needs Isaac Sim's importer.*make isaaclab"):
        assets.robot_usd(load_robot("franka_fr3"))


def test_a_urdf_without_meshes_is_handed_on_as_it_is(handed):
    robot = load_robot("franka_fr3")
    assets.robot_usd(robot)
    assert handed == [robot.urdf]
