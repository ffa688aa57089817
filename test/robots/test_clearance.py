"""Distances of links: capsules enclose their shapes; distances equal those found otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_ros.elementary import Array
from grpo_ros.errors import RobotError
from grpo_ros.robots import LinkClearance, Robot, load_robot
from grpo_ros.robots.capsules import Capsule, enclosing, link_capsules, without_enclosed
from grpo_ros.robots.clearance import _divisors, _segments_squared

ARMS = ("franka_fr3", "ur5e", "so101")


def with_safety(robot: Robot, **changes: float | None) -> Robot:
    safety = dataclasses.replace(robot.safety, **changes)  # type: ignore[arg-type]
    description = dataclasses.replace(robot.description, safety=safety)
    return dataclasses.replace(robot, description=description)


def random_joints(robot: Robot, num: int, seed: int = 0) -> Array:
    chain = robot.chain
    lower, upper = np.maximum(chain.lower, -np.pi), np.minimum(chain.upper, np.pi)
    unit = np.random.default_rng(seed).uniform(size=(chain.num_joints, num))
    return lower + (upper - lower) * unit


# ---------------------------------------------------------------- capsules


def shape(geometry: str, origin: str = "") -> str:
    return (
        f'<robot name="r"><link name="a"><collision>{origin}<geometry>{geometry}</geometry>'
        "</collision></link></robot>"
    )


def distance_to(capsule: Capsule, points: Array) -> Array:
    """Return the distance of points (n, 3) to a capsule; negative inside."""
    along = capsule.end - capsule.start
    share = (points - capsule.start) @ along / max(float(along @ along), 1e-30)
    nearest = capsule.start + np.clip(share, 0.0, 1.0)[:, None] * along
    return np.linalg.norm(points - nearest, axis=1) - capsule.radius


size = st.floats(0.01, 0.5)


@given(size, size, size)
def test_a_boxs_capsule_reaches_all_its_corners_and_no_farther_sideways(
    x: float, y: float, z: float
) -> None:
    (capsule,) = link_capsules(shape(f'<box size="{x} {y} {z}"/>'), "a.urdf")
    corners = np.array([[i * x, j * y, k * z] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
    np.testing.assert_allclose(distance_to(capsule, corners / 2.0), 0.0, atol=1e-12)


@given(size, size, st.floats(-3.0, 3.0))
def test_a_cylinders_capsule_touches_its_sides_and_rims(
    radius: float, length: float, roll: float
) -> None:
    origin = f'<origin xyz="0.1 0.2 0.3" rpy="{roll} 0 0"/>'
    text = shape(f'<cylinder radius="{radius}" length="{length}"/>', origin)
    (capsule,) = link_capsules(text, "a.urdf")
    angle, height = np.meshgrid(np.linspace(0, 2 * np.pi, 20), np.linspace(-0.5, 0.5, 9))
    local = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), length * height], axis=-1
    ).reshape(-1, 3)
    sine, cosine = np.sin(roll), np.cos(roll)
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    surface = local @ turn.T + [0.1, 0.2, 0.3]
    np.testing.assert_allclose(distance_to(capsule, surface), 0.0, atol=1e-9)


def test_a_sphere_is_a_capsule_of_no_length() -> None:
    (capsule,) = link_capsules(shape('<sphere radius="0.2"/>'), "a.urdf")
    assert capsule.radius == 0.2 and np.array_equal(capsule.start, capsule.end)


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.floats(-0.5, 0.5)] * 6, size), min_size=1, max_size=5))
def test_one_capsule_encloses_several(numbers: list[tuple[float, ...]]) -> None:
    capsules = [Capsule("a", np.array(n[:3]), np.array(n[3:6]), n[6]) for n in numbers]
    around = enclosing(capsules)
    assert all(around.encloses(capsule) for capsule in capsules)
    if len(capsules) == 1:
        assert around.radius == pytest.approx(capsules[0].radius)
    assert [c.link for c in without_enclosed([*capsules, around])] == ["a"] or len(capsules) == 1


MESH = '<mesh filename="a.stl"/>'


def test_a_mesh_is_refused_alone_and_left_out_beside_a_primitive() -> None:
    with pytest.raises(RobotError, match="link 'a' collides with meshes alone.*encloses the mesh"):
        link_capsules(shape(MESH), "a.urdf")
    both = shape(MESH).replace(
        "</link>", '<collision><geometry><sphere radius="1"/></geometry></collision></link>'
    )
    assert [capsule.radius for capsule in link_capsules(both, "a.urdf")] == [1.0]


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ('<sphere radius="0"/>', "sphere of no size"),
        ('<box size="1 1"/>', "three numbers"),
        ('<cylinder radius="1"/>', "has no 'length'"),
        ("<torus/>", "has no shape"),
    ],
)
def test_a_mistaken_shape_is_named_with_its_link(geometry: str, message: str) -> None:
    with pytest.raises(RobotError, match=f"link 'a'.*{message}|{message}"):
        link_capsules(shape(geometry), "a.urdf")


# ---------------------------------------------------------------- segments

point = st.tuples(*[st.floats(-1.0, 1.0)] * 3)


def segment_distance(p: Array, d: Array, q: Array, e: Array) -> float:
    """Return what `_segments_squared` gives for one pair."""
    lengths = _divisors(np.array([[d @ d]]), np.array([[e @ e]]))
    apart, first, second = ((v)[:, None, None] for v in (p - q, d, e))
    return float(np.sqrt(_segments_squared(apart, first, second, lengths))[0, 0])


def sampled_distance(p: Array, d: Array, q: Array, e: Array, num: int = 200) -> float:
    share = np.linspace(0.0, 1.0, num)[:, None]
    return float(np.linalg.norm((p + share * d)[:, None] - (q + share * e)[None], axis=-1).min())


@settings(max_examples=150, deadline=None)
@given(point, point, point, point)
def test_the_distance_of_segments_is_the_least_over_their_points(
    a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...], d: tuple[float, ...]
) -> None:
    p, along, q, other = (np.array(v) for v in (a, b, c, d))
    found, sampled = segment_distance(p, along, q, other), sampled_distance(p, along, q, other)
    spacing = (np.linalg.norm(along) + np.linalg.norm(other)) / 199
    assert sampled - spacing - 1e-6 <= found <= sampled + 1e-6


@pytest.mark.parametrize(
    ("start", "expected"),
    [((0.0, 0.3, 0.0), 0.3), ((2.0, 0.0, 0.0), 1.0), ((-3.0, 0.0, 0.0), 2.0), ((0.5, 0, 0), 0.0)],
)
def test_parallel_segments_have_the_distance_of_their_nearest_points(
    start: tuple[float, ...], expected: float
) -> None:
    x = np.array([1.0, 0.0, 0.0])
    assert segment_distance(np.zeros(3), x, np.array(start), x) == pytest.approx(expected)
    back = segment_distance(np.zeros(3), x, np.array(start) + x, -x)
    assert back == pytest.approx(expected)


# ---------------------------------------------------------------- a hand-made arm

LINK = """<link name="{name}"><collision><origin xyz="0 0 0.2"/><geometry>
<cylinder radius="0.02" length="0.4"/></geometry></collision></link>"""
JOINT = """<joint name="j{i}" type="revolute"><parent link="l{p}"/><child link="l{i}"/>
<origin xyz="0 0 0.4"/><axis xyz="0 1 0"/>
<limit lower="-3.1" upper="3.1" velocity="1" effort="1"/></joint>"""


@pytest.fixture
def planar(tmp_path: Path) -> Robot:
    """Three rods of 0.4 m on a fourth, hinged about y; the base stands upright on the table."""
    links = "".join(LINK.format(name=f"l{i}") for i in range(4))
    joints = "".join(JOINT.format(i=i, p=i - 1) for i in (1, 2, 3))
    (tmp_path / "robot.urdf").write_text(f'<robot name="planar">{links}{joints}</robot>')
    joint = "{home: 0.2, acceleration: 1.0, jerk: 1.0, stiffness: 1.0, damping: 1.0}"
    (tmp_path / "robot.yaml").write_text(
        "name: planar\nurdf: robot.urdf\nbase_frame: l0\ntip_frame: l3\n"
        f"joints: {{j1: {joint}, j2: {joint}, j3: {joint}}}\nsafety: {{table_height_m: 0.1}}\n"
    )
    return load_robot(tmp_path)


def test_a_bent_arm_has_the_distances_found_by_hand(planar: Robot) -> None:
    clearance = LinkClearance(planar)
    assert clearance.pairs == (("l0", "l2"), ("l0", "l3"), ("l1", "l3"))
    assert clearance.above_table == ("l1", "l2", "l3")
    right = np.pi / 2
    # Up, level, down twice: rods that do not meet are 0.4 m apart, the last hangs to -0.4 m.
    q = np.array([[right], [right], [0.0]])
    assert clearance.both(q)[1][0] == pytest.approx(0.4 - 0.04)
    assert clearance.both(q)[0][0] == pytest.approx(-0.4 - 0.02 - 0.1)
    assert clearance.lowest_link(q) == "'l3'"
    # A square: the last rod comes back to the base's end from outside.
    q = np.array([[right], [right], [right]])
    assert clearance.both(q)[1][0] == pytest.approx(-0.04)
    assert clearance.closest_links(q) == "'l0' and 'l3'"
    # The last rods point back at the base's foot, and end 0.8 m - 0.4 m sqrt(2) behind it.
    q = np.array([[right], [0.75 * np.pi], [0.0]])
    assert clearance.both(q)[1][0] == pytest.approx(-0.04)
    assert clearance.both(q)[0][0] == pytest.approx(0.4 - 0.8 * np.sqrt(0.5) - 0.02 - 0.1)
    # All three point down at 60 degrees from the base's top.
    q = np.array([[2 * np.pi / 3], [0.0], [0.0]])
    assert clearance.both(q)[0][0] == pytest.approx(0.4 - 1.2 * 0.5 - 0.02 - 0.1)
    straight = np.zeros((3, 1))
    assert clearance.both(straight)[1][0] == pytest.approx(0.4 - 0.04)


def test_without_a_table_or_pairs_distances_are_infinite(planar: Robot) -> None:
    clearance = LinkClearance(with_safety(planar, table_height_m=None, self_clearance_m=2.0))
    assert clearance.pairs == () and clearance.above_table == ()
    q = np.zeros((3, 5))
    for distances in clearance.both(q):
        assert distances.shape == (5,) and np.isposinf(distances).all()
    assert clearance.closest_links(q) == "no links" and clearance.lowest_link(q) == "no link"


def test_a_pair_that_is_near_at_home_or_always_is_not_watched(planar: Robot) -> None:
    # At home (0.2 rad each) l0 and l2 are 0.36 m apart, l1 and l3 likewise.
    assert LinkClearance(with_safety(planar, self_clearance_m=0.37)).pairs == (("l0", "l3"),)
    folded = {
        name: dataclasses.replace(joint, home=1.57)
        for name, joint in planar.description.joints.items()
    }
    description = dataclasses.replace(planar.description, joints=folded)
    robot = dataclasses.replace(planar, description=description, home=planar.home * 0.0 + 1.57)
    assert ("l0", "l3") not in LinkClearance(robot).pairs  # the square closes at home


def test_meshes_alone_are_refused_only_where_something_is_watched(planar: Robot) -> None:
    cylinder = '<cylinder radius="0.02" length="0.4"/>'
    robot = dataclasses.replace(planar, urdf=planar.urdf.replace(cylinder, MESH))
    with pytest.raises(RobotError, match="link 'l0' collides with meshes alone"):
        LinkClearance(robot)
    with pytest.raises(RobotError, match="meshes alone"):
        LinkClearance(with_safety(robot, table_height_m=None))
    blind = LinkClearance(with_safety(robot, table_height_m=None, self_clearance_m=0.0))
    q = np.zeros((3, 2))
    assert np.isposinf(blind.both(q)).all()
    assert blind.pairs == () and blind.closest_links(q) == "no links"


# ---------------------------------------------------------------- the package's arms


@pytest.mark.parametrize("name", ARMS)
def test_rows_have_the_same_bits_in_any_batch(name: str) -> None:
    robot = load_robot(name)
    clearance, q = LinkClearance(robot), random_joints(robot, 70)
    together = np.array(clearance.both(q))
    for start, num in ((0, 1), (3, 1), (5, 32), (6, 64)):
        part = np.ascontiguousarray(q[:, start : start + num])
        assert np.array_equal(clearance.both(part), together[:, start : start + num])


@pytest.mark.parametrize("name", ARMS)
def test_what_is_watched_does_not_change_between_two_looks(name: str) -> None:
    one, two = LinkClearance(load_robot(name)), LinkClearance(load_robot(name))
    assert one.pairs == two.pairs and one.above_table == two.above_table


def body_geoms(model: mujoco.MjModel, link: str) -> list[int]:
    body = model.body(link)
    geoms = range(body.geomadr[0], body.geomadr[0] + body.geomnum[0])
    return [geom for geom in geoms if model.geom_contype[geom]]


@pytest.mark.parametrize("name", ARMS)
def test_distances_are_never_above_those_of_mujocos_shapes(name: str) -> None:
    robot = load_robot(name)
    clearance, q = LinkClearance(robot), random_joints(robot, 40, seed=1)
    model = mujoco.MjSpec.from_file(str(robot.urdf_path)).compile()
    data = mujoco.MjData(model)
    assert robot.gripper is not None
    lowest, least = clearance.both(q)
    found = np.zeros(6)
    gaps = []
    for i in range(q.shape[1]):
        driven = (robot.gripper.joint, *robot.gripper.mimic_joints)
        position = (robot.gripper.open_position_m, robot.gripper.closed_position_m)[i % 2]
        for joint, value in zip(robot.arm_joints, q[:, i], strict=True):
            data.joint(joint).qpos[0] = value
        for joint in driven:
            data.joint(joint).qpos[0] = position
        mujoco.mj_forward(model, data)
        apart = min(
            mujoco.mj_geomDistance(model, data, a, b, 2.0, found)
            for first, second in clearance.pairs
            for a in body_geoms(model, first)
            for b in body_geoms(model, second)
        )
        assert least[i] <= apart + 1e-6
        gaps.append(apart - least[i])
        for link in clearance.above_table:
            for geom in body_geoms(model, link):
                assert lowest[i] <= data.geom_xpos[geom][2] - 0.01
    assert 0.0 <= np.median(gaps) < 0.06  # enclosing costs centimetres, not more


@pytest.mark.parametrize("name", ARMS)
def test_the_gripper_and_links_of_constant_height_are_not_watched_above_the_table(
    name: str,
) -> None:
    robot = load_robot(name)
    clearance = LinkClearance(robot)
    hand = {"franka_fr3": "fr3_hand", "ur5e": "gripper_base_link", "so101": "gripper_link"}[name]
    first = {"franka_fr3": "fr3_link1", "ur5e": "shoulder_link", "so101": "shoulder_link"}[name]
    assert not {hand, first} & set(clearance.above_table)
    assert any(hand in pair for pair in clearance.pairs)


@pytest.mark.parametrize("name", ARMS)
def test_home_and_the_whole_workspace_keep_the_deployed_clearances(name: str) -> None:
    robot = load_robot(name)
    home = robot.home[: robot.chain.num_joints].numpy()[:, None]
    clearance, safety = LinkClearance(robot), robot.safety
    height, distance = clearance.both(home)
    assert height[0] > 2.0 * safety.table_clearance_m
    assert distance[0] > 2.0 * safety.self_clearance_m


def test_a_base_without_links_that_rise_or_fold_has_nothing_to_watch() -> None:
    robot = with_safety(load_robot("diff_base"), table_height_m=0.0)
    clearance = LinkClearance(robot)
    assert clearance.pairs == () and clearance.above_table == ()
