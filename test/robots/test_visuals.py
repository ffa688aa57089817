"""What links look like: read from a URDF, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_ros.errors import RobotError
from grpo_ros.robots.robot import known_robots, load_robot
from grpo_ros.robots.visuals import GREY, parse_visuals

LINK = '<robot name="r">{head}<link name="a"><visual>{body}</visual></link></robot>'


def visual(body: str, head: str = ""):
    (found,) = parse_visuals(LINK.format(head=head, body=body), "r.urdf")
    return found


@pytest.mark.parametrize("name", known_robots())
def test_every_robot_has_visuals_with_colours_on_its_own_links(name: str) -> None:
    robot = load_robot(name)
    found = parse_visuals(robot.urdf, robot.urdf_path.name)
    assert len(found) >= 2
    assert len(found) == robot.urdf.count("<visual>")
    assert all(f'<link name="{each.link}"' in robot.urdf for each in found)
    assert all(each.colour is not None and min(each.size) > 0.0 for each in found)


def test_a_shape_has_the_place_and_the_colour_that_the_urdf_gives() -> None:
    head = '<material name="red"><color rgba="1 0 0 0.5"/></material>'
    body = (
        '<origin xyz="1 2 3" rpy="0 0 1.5707963267948966"/>'
        '<geometry><box size="0.1 0.2 0.3"/></geometry><material name="red"/>'
    )
    found = visual(body, head)
    assert (found.link, found.kind, found.size) == ("a", "box", (0.1, 0.2, 0.3))
    assert found.colour == (1.0, 0.0, 0.0, 0.5)
    assert found.translation.tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(found.rotation @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-15)


def test_without_a_material_primitives_are_grey_and_meshes_keep_their_own_colours() -> None:
    assert visual('<geometry><sphere radius="0.2"/></geometry>').colour == GREY
    mesh = visual('<geometry><mesh filename="package://p/a.dae" scale="2 2 2"/></geometry>')
    assert (mesh.kind, mesh.file, mesh.size) == ("mesh", "package://p/a.dae", (2.0, 2.0, 2.0))
    assert mesh.colour is None


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<geometry/>", "link 'a' has 0 shapes"),
        ('<geometry><cone radius="1"/></geometry>', "is a <cone>"),
        ('<geometry><sphere radius="big"/></geometry>', "big"),
        ('<geometry><box size="1 2"/></geometry>', "size='1 2'"),
    ],
)
def test_an_incomplete_shape_is_refused_by_its_link(body: str, complaint: str) -> None:
    with pytest.raises(RobotError, match=complaint):
        visual(body)
