"""What MuJoCo builds of a manufacturer's URDF, and what it cannot build is named."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from grpo_ros.errors import RobotError, SimulatorError
from grpo_ros.robots import load_robot
from grpo_ros.simulators.mujoco.model import build_model
from grpo_ros.tasks.base import Body

HOW_TO = (Path(__file__).parents[2] / "docs" / "how-to" / "add_your_own_arm.md").read_text()
TIMESTEP_S = 0.01


def binary_stl(size_m):
    """A tetrahedron with three edges of this length, along the axes."""
    o, x, y, z = (0.0, 0.0, 0.0), (size_m, 0.0, 0.0), (0.0, size_m, 0.0), (0.0, 0.0, size_m)
    faces = [(o, y, x), (o, x, z), (o, z, y), (x, y, z)]
    rows = [struct.pack("<12fH", 0, 0, 0, *np.ravel(face), 0) for face in faces]
    return bytes(80) + struct.pack("<I", len(faces)) + b"".join(rows)


def mesh(kind, name):
    return f'<{kind}><geometry><mesh filename="{name}"/></geometry></{kind}>'


@pytest.fixture
def arm(tmp_path, monkeypatch):
    """Return the how-to's arm with shapes added to its column, beside two meshes of one name."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "desk_arm"
    for name, size_m in (("visual", 0.05), ("collision", 0.1)):
        (folder / "desk" / name).mkdir(parents=True)
        (folder / "desk" / name / "column.stl").write_bytes(binary_stl(size_m))
    (folder / "desk" / "column.dae").write_text("<COLLADA/>")
    (folder / "desk" / "text.stl").write_text("solid column\nendsolid column\n" + " " * 80)
    (urdf,) = re.findall(r"```xml\n(.*?)```", HOW_TO, re.S)
    (description,) = re.findall(r"```yaml\n(.*?)```", HOW_TO, re.S)
    (folder / "robot.yaml").write_text(description)

    def make(shapes="", old="", new=""):
        assert old in urdf
        link = '<link name="column">'
        text = urdf.replace(old, new, 1) if old else urdf
        (folder / "robot.urdf").write_text(text.replace(link, link + shapes))
        return load_robot(folder)

    return make


def test_meshes_of_one_name_in_two_folders_are_two(arm):
    shapes = [
        mesh("visual", "package://desk/visual/column.stl"),
        mesh("collision", "desk/collision/column.stl"),
        mesh("collision", "package://desk/collision/column.stl"),
    ]
    model = build_model(arm("".join(shapes)), [], TIMESTEP_S)
    sizes = []
    for i in range(model.nmesh):
        first, number = model.mesh_vertadr[i], model.mesh_vertnum[i]
        vertices = model.mesh_vert[first : first + number]
        distances = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1)
        sizes.append(float(distances.max()))
    np.testing.assert_allclose(sizes, [0.05 * 2**0.5, 0.1 * 2**0.5], rtol=1e-5)


@pytest.mark.parametrize("shape", ["desk/visual/column.stl", "package://desk/visual/column.stl"])
def test_a_urdf_with_settings_for_mujoco_finds_its_meshes_as_well(arm, shape):
    settings = "<mujoco><compiler discardvisual='false'/></mujoco></robot>"
    robot = arm(mesh("visual", shape), "</robot>", settings)
    assert build_model(robot, [], TIMESTEP_S).nmesh == 1


def test_a_urdf_that_says_where_mujoco_finds_its_meshes_is_left_as_it_is(arm, tmp_path):
    folder = tmp_path / "desk_arm" / "desk" / "visual"
    settings = f"<mujoco><compiler discardvisual='false' meshdir='{folder}'/></mujoco></robot>"
    robot = arm(mesh("visual", "column.stl"), "</robot>", settings)
    assert build_model(robot, [], TIMESTEP_S).nmesh == 1


def test_a_visual_that_mujoco_does_not_read_is_left_out(arm):
    plain = build_model(arm(), [], TIMESTEP_S)
    model = build_model(arm(mesh("visual", "package://not_here/column.dae")), [], TIMESTEP_S)
    assert model.nmesh == 0 and model.ngeom == plain.ngeom


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (mesh("collision", "desk/column.dae"), r"<collision> of link 'column'.*\.stl.*convert it"),
        (mesh("visual", "desk/missing.stl"), r"robot.urdf: there is no mesh file"),
        (mesh("collision", "desk/text.stl"), r"robot.urdf: MuJoCo cannot build.*binary STL"),
        ("<visual><geometry><mesh/></geometry></visual>", r"'column' has no 'filename'"),
    ],
)
def test_a_mesh_that_cannot_be_read_is_named(arm, shape, message):
    with pytest.raises(RobotError, match=message):
        build_model(arm(shape), [], TIMESTEP_S)


def test_a_link_without_mass_is_named(arm):
    robot = arm("", '<mass value="0.05"/>', '<mass value="0"/>')
    with pytest.raises(RobotError, match=r"robot.urdf: MuJoCo cannot build it: .*'finger'"):
        build_model(robot, [], TIMESTEP_S)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Body("column", "box", (0.1, 0.1, 0.1)), "repeated name 'column'"),
        (Body("x", "box", (0.1, 0.1, 0.0)), "size 2 must be positive.*'x'.*all > 0"),
        (Body("x", "sphere", (0.1,), mass=0.0), "mass and inertia.*'x'"),
    ],
)
def test_a_body_that_cannot_be_built_is_named(arm, body, message):
    with pytest.raises(SimulatorError, match=rf"'desk_arm' with the bodies .*{message}"):
        build_model(arm(), [body], TIMESTEP_S)
