"""The robots' descriptions are valid, and every mistake in a description is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest
import torch

from grpo_ros.errors import RobotError
from grpo_ros.robots import known_robots, load_robot
from grpo_ros.robots.checks import UNBOUNDED_RAD
from grpo_ros.robots.robot import ROBOTS_DIRECTORY
from grpo_ros.robots.urdf import parse_urdf

SOURCE = ROBOTS_DIRECTORY / "franka_fr3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SOURCE, tmp_path / "robot"))


def edit(folder: Path, file: str, old: str, new: str) -> None:
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


def test_every_robot_of_the_package_loads() -> None:
    assert "franka_fr3" in known_robots()
    for name in known_robots():
        assert load_robot(name).name == name


def test_franka_has_the_published_limits() -> None:
    robot = load_robot("franka_fr3")
    assert robot.arm_joints == tuple(f"fr3_joint{i}" for i in range(1, 8))
    assert robot.joint_names == (*robot.arm_joints, "fr3_finger_joint1")
    arm = robot.limits[:7]
    scale = robot.description.velocity_scale
    published = [2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26]
    np.testing.assert_allclose([limit.velocity / scale for limit in arm], published)
    assert [limit.effort for limit in arm] == [87.0] * 4 + [12.0] * 3
    assert {limit.acceleration for limit in arm} == {10.0}
    assert {limit.jerk for limit in arm} == {5000.0}
    margin = robot.description.position_margin
    assert robot.limits[3].upper == -0.1518 - margin


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e", "so101"])
def test_home_has_the_gripper_open_and_lies_within_limits(name: str) -> None:
    robot = load_robot(name)
    assert robot.gripper is not None
    assert robot.home[-1] == robot.gripper.open_position_m
    for position, limit in zip(robot.home.tolist(), robot.limits, strict=True):
        assert limit.lower <= position <= limit.upper
    for values in (robot.stiffness, robot.damping, robot.armature):
        assert values.shape == (len(robot.limits),) and values.dtype == torch.float64


ROBOTS = known_robots()
GRIPPERS = {
    "franka_fr3": ("fr3_leftfinger", "fr3_rightfinger", "fr3_hand_tcp"),
    "ur5e": ("left_finger", "right_finger", "gripper_tcp"),
}


@pytest.mark.parametrize("name", ROBOTS)
def test_every_inertia_is_physically_possible(name: str) -> None:
    file = ROBOTS_DIRECTORY / name / "robot.urdf"
    for inertial in ElementTree.parse(file).getroot().iter("inertial"):
        mass, inertia = inertial.find("mass"), inertial.find("inertia")
        assert mass is not None and inertia is not None
        entry = {key: float(value) for key, value in inertia.items()}
        matrix = np.array(
            [
                [entry["ixx"], entry["ixy"], entry["ixz"]],
                [entry["ixy"], entry["iyy"], entry["iyz"]],
                [entry["ixz"], entry["iyz"], entry["izz"]],
            ]
        )
        moments = np.linalg.eigvalsh(matrix)
        assert float(mass.get("value", 0)) > 0 and moments[0] > 0
        assert moments[0] + moments[1] > moments[2]


@pytest.mark.parametrize(
    ("name", "num", "lightest", "heaviest"),
    [
        ("franka_fr3", 9, 17.0, 20.0),  # Franka gives about 18 kg
        ("ur5e", 8, 21.0, 23.0),  # Universal Robots gives 20.6 kg, Robotiq 0.925 kg
        ("so101", 6, 0.6, 0.7),
    ],
)
def test_mujoco_compiles_the_urdf_with_its_visuals(
    name: str, num: int, lightest: float, heaviest: float
) -> None:
    urdf = ROBOTS_DIRECTORY / name / "robot.urdf"
    model = mujoco.MjSpec.from_file(str(urdf)).compile()
    assert model.nq == num
    assert (model.geom_contype == 0).any()
    assert lightest < model.body_subtreemass[0] < heaviest


@pytest.mark.parametrize("name", GRIPPERS)
def test_the_closed_pads_touch_and_the_tip_lies_between_them(name: str) -> None:
    urdf = ROBOTS_DIRECTORY / name / "robot.urdf"
    model = mujoco.MjSpec.from_file(str(urdf)).compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    left, right, tip_frame = GRIPPERS[name]
    tip = data.body(tip_frame).xpos
    for finger, side in ((left, 1.0), (right, -1.0)):
        body = model.body(finger)
        pad = body.geomadr[0] + body.geomnum[0] - 1
        local = data.geom_xmat[pad].reshape(3, 3).T @ (tip - data.geom_xpos[pad])
        np.testing.assert_allclose(side * local[1], -model.geom_size[pad][1], atol=1e-9)
        assert abs(local[2]) < model.geom_size[pad][2]


def test_a_ur5e_is_where_its_published_table_puts_it() -> None:
    # Denavit-Hartenberg rows d, a, alpha of "DH parameters for calculations of kinematics and
    # dynamics"; its base frame looks back along base_link's x, the gripper stands on its flange.
    right = np.pi / 2
    table = [
        (0.1625, 0.0, right),
        (0.0, -0.425, 0.0),
        (0.0, -0.3922, 0.0),
        (0.1333, 0.0, right),
        (0.0997, 0.0, -right),
        (0.0996, 0.0, 0.0),
    ]
    robot = load_robot("ur5e")
    for q in (np.zeros(6), np.array([0.3, -1.2, 1.7, -2.0, -1.1, 0.6])):
        pose = np.diag([-1.0, -1.0, 1.0, 1.0])
        for angle, (d, a, alpha) in zip(q, table, strict=True):
            c, s, ca, sa = np.cos(angle), np.sin(angle), np.cos(alpha), np.sin(alpha)
            pose = pose @ np.array(
                [
                    [c, -s * ca, s * sa, a * c],
                    [s, c * ca, -c * sa, a * s],
                    [0.0, sa, ca, d],
                    [0.0, 0.0, 0.0, 1.0],
                ]
            )
        tip, rotation = robot.chain.forward(torch.from_numpy(q)[None])
        np.testing.assert_allclose(tip[0], pose[:3] @ [0.0, 0.0, 0.1493, 1.0], atol=1e-12)
        np.testing.assert_allclose(rotation[0, :, 1], pose[:3, 0], atol=1e-12)  # fingers' axis
        np.testing.assert_allclose(rotation[0, :, 2], pose[:3, 2], atol=1e-12)


def test_ur5e_has_the_published_limits_less_its_margins() -> None:
    robot = load_robot("ur5e")
    turn, margin, scale = (
        2.0 * np.pi,
        robot.description.position_margin,
        robot.description.velocity_scale,
    )
    arm = robot.limits[:6]
    assert [limit.upper for limit in arm] == pytest.approx(
        [turn - margin, turn - margin, np.pi - margin, *[turn - margin] * 3]
    )
    assert [-limit.lower for limit in arm] == [limit.upper for limit in arm]
    assert [limit.velocity for limit in arm] == pytest.approx([3.14 * scale] * 6)
    assert [limit.effort for limit in arm] == [150.0] * 3 + [28.0] * 3
    assert robot.gripper_unit == "m"


def test_so101_stretches_as_far_as_its_links_are_long() -> None:
    # At zero the upper arm stands, the lower arm and the hand are level.
    tip, rotation = load_robot("so101").chain.forward(torch.zeros(1, 5, dtype=torch.float64))
    x = 0.0388353 + 0.0303992 + 0.028 + 0.1349 + 0.0611 + 0.0981274
    z = 0.0624 + 0.0542 + 0.11257 + 0.0052 - 0.0079
    np.testing.assert_allclose(tip[0], [x, 0.0, z], atol=3e-4)
    np.testing.assert_allclose(rotation[0, :, 2], [1.0, 0.0, 0.0], atol=1e-9)


def test_a_grippers_unit_is_that_of_its_driver_joint() -> None:
    units = {name: load_robot(name).gripper_unit for name in ROBOTS}
    assert units == {"franka_fr3": "m", "ur5e": "m", "so101": "rad", "diff_base": ""}


@pytest.mark.parametrize("name", ROBOTS)
def test_the_deployed_limits_name_joints_of_the_arm(name: str) -> None:
    robot = load_robot(name)
    torque = robot.safety.external_torque
    if torque is not None:
        assert set(torque.limit) == set(robot.arm_joints)
        for limit in robot.limits[: len(robot.arm_joints)]:
            assert 0.0 < torque.limit[limit.name] <= limit.effort


def test_a_robot_is_loaded_from_a_folder_and_hashed_by_content(folder: Path) -> None:
    same, original = load_robot(folder), load_robot("franka_fr3")
    assert same.sha256 == original.sha256 == load_robot(folder / "robot.yaml").sha256
    edit(folder, "robot.yaml", "damping: 25.0", "damping: 26.0")
    changed = load_robot(folder)
    assert changed.sha256 != original.sha256 and changed.damping[6] == 26.0


def test_an_unknown_robot_gets_the_nearest_name() -> None:
    with pytest.raises(RobotError, match=r"no robot 'franka_fr4'.*did you mean 'franka_fr3'\?"):
        load_robot("franka_fr4")


YAML, URDF = "robot.yaml", "robot.urdf"
MOUNT = """<link name="world"/><link name="base"/>
<joint name="mount" type="{kind}"><parent link="world"/><child link="base"/>
<origin xyz="{xyz}"/></joint>"""
JOINT_1 = 'lower="-2.7437" upper="2.7437"'
MISTAKES = {
    "unknown key": (YAML, "tip_frame:", "tip_farme:", "unknown key 'robot.yaml.tip_farme'.*did"),
    "not YAML": (YAML, "name: franka_fr3", "name: [", "robot.yaml: not YAML"),
    "not a mapping": (YAML, None, "- 1", "robot.yaml: holds"),
    "unknown joint": (YAML, "fr3_joint7:", "fr3_joint9:", "robot.urdf: no joint 'fr3_joint9'"),
    "missing arm joint": (
        YAML,
        "    {home: 0.0, acceleration: 10.0",
        "    {homme: 0.0, acceleration: 10.0",
        "unknown key 'robot.yaml.joints.fr3_joint1.homme'.*did you mean 'home'",
    ),
    "home outside limits": (YAML, "{home: 1.57", "{home: 9.57", "home of 'fr3_joint6'.*within"),
    "infinite jerk": (YAML, "jerk: 5000.0", "jerk: .inf", "jerk = inf.*finite"),
    "negative acceleration": (YAML, "acceleration: 10.0", "acceleration: -1.0", "acceleration"),
    "unknown tip": (YAML, "tip_frame: fr3_hand_tcp", "tip_frame: fr3_hand_tpc", "did you mean"),
    "tip not on base": (YAML, "base_frame: base", "base_frame: fr3_leftfinger", "cannot be reach"),
    "no such URDF": (YAML, "urdf: robot.urdf", "urdf: other.urdf", "other.urdf cannot be read"),
    "mimic multiplier": (
        URDF,
        'multiplier="1"',
        'multiplier="-1"',
        "robot.urdf: joint 'fr3_finger_joint2' .* multiplier -1 .*reverse its <axis>",
    ),
    "mimic offset": (URDF, 'offset="0"', 'offset="0.01"', "'fr3_finger_joint2' .* offset 0.01"),
    "mimic not a number": (URDF, 'offset="0"', 'offset="x"', "'fr3_finger_joint2' has the value"),
    "mimic": (YAML, "[fr3_finger_joint2]", "[fr3_joint2]", "mimic_joints has 'fr3_joint2'"),
    "workspace": (YAML, "z: [0.005, 0.4]", "z: [0.5, 0.4]", r"workspace.z = \[0.5, 0.4\]"),
    "not XML": (URDF, "</robot>", "", "robot.urdf: not XML"),
    "xacro": (URDF, None, "<sdf/>", "root element <sdf>"),
    "entities": (URDF, "<robot", "<!DOCTYPE a [<!ENTITY b 'c'>]><robot", "document type"),
    "no limits": (URDF, f"<limit {JOINT_1} ", "<limits ", "'fr3_joint1' has no <limit>"),
    "no lower": (URDF, 'lower="-2.7437"', "", "<limit> of joint 'fr3_joint1' has no 'lower'"),
    "limits swapped": (URDF, JOINT_1, 'lower="1" upper="-1"', r"\[1.0, -1.0\].*lower < upper"),
    "no velocity": (URDF, 'velocity="2.62"', 'velocity="0"', "velocity 0.0"),
    "non-finite": (URDF, 'xyz="0 0 0.333"', 'xyz="0 0 nan"', "'fr3_joint1' has the value 'nan'"),
    "not a number": (URDF, 'xyz="0 0 0.333"', 'xyz="0 0 a"', "the value 'a'.*finite number"),
    "two numbers": (URDF, 'xyz="0 0 0.333"', 'xyz="0 0.333"', "three numbers"),
    "zero axis": (URDF, 'axis xyz="0 0 1"', 'axis xyz="0 0 0"', "zero axis"),
    "joint type": (URDF, 'type="revolute"', 'type="floating"', "type 'floating'.*revolute"),
    "unknown link": (URDF, 'parent link="fr3_link0"', 'parent link="fr3_link00"', "did you mean"),
    "joint twice": (URDF, '"fr3_joint2"', '"fr3_joint1"', "joint 'fr3_joint1' appears twice"),
    "mounting offset": (
        URDF,
        '<link name="base"/>',
        MOUNT.format(kind="fixed", xyz="0 0 0.2"),
        "base_frame 'base' is at .*0.2.* in 'world', the root .*or remove the mounting joint",
    ),
    "moving base": (
        URDF,
        '<link name="base"/>',
        MOUNT.format(kind="continuous", xyz="0 0 0"),
        r"base_frame 'base' moves by \['mount'\] in 'world'",
    ),
    "arm joint that mimics": (
        URDF,
        '<axis xyz="0 0 1"/>',
        '<axis xyz="0 0 1"/><mimic joint="fr3_joint2"/>',
        "joint 'fr3_joint1' is commanded, and mimics 'fr3_joint2'",
    ),
    "driver that mimics": (
        URDF,
        '<child link="fr3_leftfinger"/>',
        '<child link="fr3_leftfinger"/><mimic joint="fr3_joint2"/>',
        "joint 'fr3_finger_joint1' is commanded, and mimics 'fr3_joint2'",
    ),
    "joint that nothing commands": (
        YAML,
        "mimic_joints: [fr3_finger_joint2]",
        "mimic_joints: []",
        "joint 'fr3_finger_joint2' moves, and nothing commands it.*make it fixed",
    ),
    "a loop": (
        URDF,
        '<parent link="base"/>',
        '<parent link="fr3_link8"/>',
        "joints make a loop, which holds fr3_link0, .*'base'",
    ),
    "two roots": (URDF, "</robot>", '<link name="lost"/></robot>', r"2 links .*\(base, lost\)"),
    "key twice": (YAML, "urdf:", "name: other\nurdf:", r"key 'name' stands twice\s+in .*line 3"),
    "no child": (URDF, '<child link="fr3_link1"/>', "", "'fr3_joint1' has no <child>"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_file_and_what_is_wrong(folder: Path, mistake: str) -> None:
    file, old, new, message = MISTAKES[mistake]
    if old is None:
        (folder / file).write_text(new)
    else:
        edit(folder, file, old, new)
    with pytest.raises(RobotError, match=message) as caught:
        load_robot(folder)
    assert caught.value.expected or caught.value.remedy


def test_a_base_frame_may_be_fixed_to_the_root_without_an_offset(folder: Path) -> None:
    edit(folder, URDF, '<link name="base"/>', MOUNT.format(kind="fixed", xyz="0 0 0"))
    robot, original = load_robot(folder), load_robot("franka_fr3")
    q = original.home[None, :7]
    assert torch.equal(robot.chain.forward(q)[0], original.chain.forward(q)[0])


def test_a_robot_may_stand_on_wheels_that_nothing_commands(folder: Path) -> None:
    wheel = """<link name="wheel"/><joint name="roll" type="continuous"><parent link="base"/>
      <child link="wheel"/></joint></robot>"""
    edit(folder, URDF, "</robot>", wheel)
    assert load_robot(folder).joint_names == load_robot("franka_fr3").joint_names


def test_numbers_are_read_as_in_every_other_file_of_settings(folder: Path) -> None:
    edit(folder, YAML, "jerk: 5000.0", "jerk: 5e3")
    assert load_robot(folder).limits[0].jerk == 5000.0


def test_a_continuous_joint_has_bounds_that_are_numbers(folder: Path) -> None:
    edit(folder, URDF, 'name="fr3_joint1" type="revolute"', 'name="fr3_joint1" type="continuous"')
    limit = load_robot(folder).limits[0]
    assert (limit.lower, limit.upper) == (-UNBOUNDED_RAD, UNBOUNDED_RAD)
    edit(folder, YAML, "{home: 0.0", "{home: 1000.5")
    with pytest.raises(RobotError, match=r"home of 'fr3_joint1' = 1000.5.*\[-1000.0, 1000.0\]"):
        load_robot(folder)


def test_a_free_wheel_needs_no_limits() -> None:
    text = """<robot name="rover"><link name="base"/><link name="wheel"/>
      <joint name="roll" type="continuous"><parent link="base"/><child link="wheel"/></joint>
    </robot>"""
    joint = parse_urdf(text, "rover.urdf").joint("roll")
    assert (joint.lower, joint.upper, joint.velocity) == (-np.inf, np.inf, np.inf)
    turning = text.replace("continuous", "revolute")
    with pytest.raises(RobotError, match="'roll' has no <limit>"):
        parse_urdf(turning, "rover.urdf")


def test_a_continuous_joint_that_is_commanded_needs_limits(folder: Path) -> None:
    edit(folder, URDF, 'name="fr3_joint1" type="revolute"', 'name="fr3_joint1" type="continuous"')
    limit = '<limit lower="-2.7437" upper="2.7437" velocity="2.62" effort="87"/>'
    text = (folder / URDF).read_text()
    (folder / URDF).write_text(text.replace(limit, "", 1))  # of the first joint, which is this one
    with pytest.raises(RobotError, match="'fr3_joint1' has no <limit>"):
        load_robot(folder)


def test_binary_files_are_refused(folder: Path) -> None:
    (folder / URDF).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RobotError, match="not UTF-8"):
        load_robot(folder)
