"""Where the mesh files of a URDF are."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from grpo_ros.errors import RobotError
from grpo_ros.robots.meshes import mesh_path, with_mesh_paths, with_mesh_uris


@pytest.fixture
def urdf(tmp_path: Path) -> Path:
    """A URDF's place in a package `arm_description` with a mesh; the file itself is not needed."""
    package = tmp_path / "arm_description"
    for folder in ("urdf", "meshes"):
        (package / folder).mkdir(parents=True)
    (package / "meshes" / "link.stl").write_bytes(b"")
    return package / "urdf" / "robot.urdf"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The share folder of the one installed package, `other_description`."""
    folder = tmp_path / "install" / "share" / "other_description"

    def find(package: str) -> str:
        if package != folder.name:
            raise KeyError(package)
        return str(folder)

    packages = ModuleType("ament_index_python.packages")
    packages.get_package_share_directory = find  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ament_index_python", ModuleType("ament_index_python"))
    monkeypatch.setitem(sys.modules, "ament_index_python.packages", packages)
    return folder


@pytest.mark.parametrize(
    "name",
    ["package://arm_description/meshes/link.stl", "../meshes/link.stl", "file://{}", "{}"],
)
def test_a_mesh_is_found_wherever_the_process_is(urdf: Path, name: str) -> None:
    there = urdf.parents[1] / "meshes" / "link.stl"
    assert mesh_path(name.format(there), urdf).samefile(there)


def test_a_package_may_lie_beside_the_urdf_or_be_installed(urdf: Path, install: Path) -> None:
    name = "package://other_description/meshes/link.stl"
    for folder in (install, urdf.parent / "other_description"):  # the later counts first
        (folder / "meshes").mkdir(parents=True)
        (folder / "meshes" / "link.stl").write_bytes(b"")
        assert mesh_path(name, urdf) == folder / "meshes" / "link.stl"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package://no_such/link.stl", r"'package://no_such/link.stl'.*folder 'no_such' beside"),
        ("meshes/link.stl", r"robot.urdf: there is no mesh file 'meshes/link.stl'"),
        ("https://host/link.stl", r"'https://host/link.stl'.*expected a path relative"),
    ],
)
def test_a_mesh_that_is_not_there_is_named(urdf: Path, name: str, message: str) -> None:
    with pytest.raises(RobotError, match=message):
        mesh_path(name, urdf)


@pytest.mark.parametrize("is_ros_there", [True, False])
def test_without_ros_no_package_is_installed(
    urdf: Path, install: Path, monkeypatch: pytest.MonkeyPatch, is_ros_there: bool
) -> None:
    if not is_ros_there:
        monkeypatch.setitem(sys.modules, "ament_index_python.packages", None)
    with pytest.raises(RobotError, match="source the package"):
        mesh_path("package://no_such/link.stl", urdf)


def test_every_mesh_of_a_text_gets_its_whole_path(urdf: Path) -> None:
    plain = "<robot name='r'><link name='a'/></robot>"
    assert with_mesh_paths(plain, urdf) == (plain, [])
    shape = "<geometry><mesh filename='../meshes/link.stl' scale='1 1 2'/></geometry>"
    text = f"<robot><link name='a'><visual>{shape}</visual></link></robot>"
    resolved, (path,) = with_mesh_paths(text, urdf)
    (mesh,) = ElementTree.fromstring(resolved).iter("mesh")
    assert mesh.get("filename") == str(path)
    assert path.samefile(urdf.parents[1] / "meshes" / "link.stl")
    assert mesh.get("scale") == "1 1 2"


def test_a_published_text_names_meshes_as_any_node_finds_them(tmp_path: Path) -> None:
    """RViz and the browser view looked for `meshes/link.stl` in their own folders."""
    folder = tmp_path / "my arm"
    folder.mkdir()
    (folder / "link.stl").write_bytes(b"solid")
    shapes = "".join(
        f"<visual><geometry><mesh filename='{name}'/></geometry></visual>"
        for name in ("link.stl", "package://elsewhere/link.dae")
    )
    text = with_mesh_uris(f"<robot><link name='a'>{shapes}</link></robot>", folder / "arm.urdf")
    here, elsewhere = (m.attrib["filename"] for m in ElementTree.fromstring(text).iter("mesh"))
    assert here.startswith("file:///") and " " not in here
    assert mesh_path(here).samefile(folder / "link.stl")
    assert elsewhere == "package://elsewhere/link.dae"
    with pytest.raises(RobotError, match="robot_description: there is no mesh file"):
        mesh_path(elsewhere)
