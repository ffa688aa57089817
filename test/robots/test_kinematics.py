"""Kinematics against independent libraries, analytic oracles, and row by row."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import pytorch_kinematics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rotation_helpers import angle_between, quaternion_from_yaw
from torch import Tensor

from grpo_ros import rotations
from grpo_ros.errors import RobotError
from grpo_ros.robots import Robot, SerialChain, load_robot, solve_ik
from grpo_ros.robots.chain_frames import ChainFrames
from grpo_ros.robots.kinematics import (
    columns,
    damped_least_squares,
    manipulability,
    rotation_error,
)
from grpo_ros.robots.urdf import parse_urdf

BATCHES = (1, 2, 3, 7, 64, 256)


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot("franka_fr3")


def random_joints(chain: SerialChain, num: int, seed: int = 0) -> Tensor:
    lower, upper = torch.from_numpy(chain.lower[:, 0]), torch.from_numpy(chain.upper[:, 0])
    generator = torch.Generator().manual_seed(seed)
    shape = (num, chain.num_joints)
    return lower + (upper - lower) * torch.rand(shape, generator=generator, dtype=torch.float64)


def test_forward_and_jacobian_equal_mujoco(robot: Robot) -> None:
    model = mujoco.MjSpec.from_file(str(robot.urdf_path)).compile()
    data = mujoco.MjData(model)
    q = random_joints(robot.chain, 30)
    position, rotation, jacobian = robot.chain.jacobian(q)
    body = model.body(robot.tip_frame).id
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    for i in range(len(q)):
        data.qpos[: q.shape[1]] = q[i].numpy()
        mujoco.mj_forward(model, data)
        mujoco.mj_jacBody(model, data, linear, angular, body)
        expected = np.vstack([linear, angular])[:, : q.shape[1]]
        np.testing.assert_allclose(position[i], data.xpos[body], atol=1e-12)
        np.testing.assert_allclose(rotation[i], data.xmat[body].reshape(3, 3), atol=1e-12)
        np.testing.assert_allclose(jacobian[i], expected, atol=1e-12)


def test_forward_and_jacobian_equal_pytorch_kinematics(robot: Robot) -> None:
    # Its URDF reader rounds angles to single precision.
    chain = pytorch_kinematics.build_serial_chain_from_urdf(
        robot.urdf, robot.tip_frame, robot.base_frame
    ).to(dtype=torch.float64)
    q = random_joints(robot.chain, 30)
    position, rotation, jacobian = robot.chain.jacobian(q)
    expected = chain.forward_kinematics(q).get_matrix()
    torch.testing.assert_close(position, expected[:, :3, 3], atol=1e-7, rtol=0)
    torch.testing.assert_close(rotation, expected[:, :3, :3], atol=1e-7, rtol=0)
    torch.testing.assert_close(jacobian, chain.jacobian(q), atol=1e-7, rtol=0)


MIXED = """<robot name="mixed">
  <link name="a"/><link name="b"/><link name="c"/><link name="d"/><link name="tip"/>
  <joint name="slide" type="prismatic"><parent link="a"/><child link="b"/>
    <origin xyz="0.1 0.2 0.3" rpy="0.3 -0.4 0.5"/><axis xyz="1 2 2"/>
    <limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
  <joint name="turn" type="continuous"><parent link="b"/><child link="c"/>
    <origin xyz="0.4 0 0.1" rpy="-1 0.2 0.1"/><axis xyz="0 -1 1"/>
    <limit velocity="1" effort="1"/></joint>
  <joint name="slide2" type="prismatic"><parent link="c"/><child link="d"/>
    <axis xyz="0 0 -1"/><limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
  <joint name="weld" type="fixed"><parent link="d"/><child link="tip"/>
    <origin xyz="0 0.2 0.1" rpy="0.7 0 1.1"/></joint>
</robot>"""


def test_a_jacobian_is_the_derivative_of_forward_for_any_joint_types() -> None:
    chain = SerialChain.from_urdf(parse_urdf(MIXED, "mixed.urdf"), "a", "tip")
    assert chain.joint_names == ("slide", "turn", "slide2")
    q = torch.tensor([[0.2, 0.7, -0.3], [-0.4, -2.0, 0.5]], dtype=torch.float64)
    position, rotation, jacobian = chain.jacobian(q)
    reference = pytorch_kinematics.build_serial_chain_from_urdf(MIXED, "tip", "a")
    expected = reference.to(dtype=torch.float64).forward_kinematics(q).get_matrix()
    torch.testing.assert_close(position, expected[:, :3, 3], atol=1e-6, rtol=0)
    torch.testing.assert_close(rotation, expected[:, :3, :3], atol=1e-6, rtol=0)
    step = 1e-6
    for j in range(3):
        ahead, behind = q.clone(), q.clone()
        ahead[:, j] += step
        behind[:, j] -= step
        (p1, r1), (p0, r0) = chain.forward(ahead), chain.forward(behind)
        torch.testing.assert_close(jacobian[:, :3, j], (p1 - p0) / (2 * step), atol=1e-8, rtol=0)
        spin = (r1 - r0) / (2 * step) @ rotation.transpose(1, 2)
        angular = torch.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], dim=-1)
        torch.testing.assert_close(jacobian[:, 3:, j], angular, atol=1e-8, rtol=0)


def test_the_ready_pose_is_where_the_published_table_puts_it(robot: Robot) -> None:
    # At q = (0, -45, 0, -135, 0, 90, 45) degrees the upper arm leans back by 45 degrees, the
    # forearm is level and the hand points down; the lengths add up by hand.
    s = np.sqrt(0.5)
    x = -0.316 * s + 0.0825 * s + 0.384 + 0.088
    z = 0.333 + 0.316 * s + 0.0825 * s + 0.0825 - 0.107 - 0.1034
    position, rotation = robot.chain.forward(robot.home[None, :7])
    np.testing.assert_allclose(position[0], [x, 0.0, z], atol=1e-12)
    np.testing.assert_allclose(rotation[0], np.diag([1.0, -1.0, -1.0]), atol=1e-12)


@pytest.mark.parametrize("num", BATCHES)
def test_rows_have_the_same_bits_in_any_batch(robot: Robot, num: int) -> None:
    q = random_joints(robot.chain, 300, seed=1)
    together = (*robot.chain.forward(q), *robot.chain.jacobian(q))
    for start in (0, 1, 44):
        part = slice(start, start + num)
        alone = (*robot.chain.forward(q[part]), *robot.chain.jacobian(q[part]))
        for whole, sliced in zip(together, alone, strict=True):
            assert torch.equal(whole[part], sliced)


def test_rows_have_the_same_bits_from_a_strided_tensor(robot: Robot) -> None:
    q = random_joints(robot.chain, 64)
    wide = torch.zeros(128, 20, dtype=torch.float64)
    wide[::2, 3:17:2] = q
    for whole, strided in zip(
        robot.chain.jacobian(q), robot.chain.jacobian(wide[::2, 3:17:2]), strict=True
    ):
        assert torch.equal(whole, strided)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 250), st.sampled_from(BATCHES), st.booleans())
def test_least_squares_rows_have_the_same_bits_in_any_batch(
    start: int, num: int, with_pull: bool
) -> None:
    random = np.random.default_rng(0)
    jacobian = random.normal(size=(6, 7, 300))
    error, pull = random.normal(size=(6, 300)), random.normal(size=(7, 300))
    part = slice(start, start + num)
    whole = damped_least_squares(jacobian, error, 0.02, pull if with_pull else None)
    sliced = damped_least_squares(
        np.ascontiguousarray(jacobian[..., part]),
        np.ascontiguousarray(error[:, part]),
        0.02,
        np.ascontiguousarray(pull[:, part]) if with_pull else None,
    )
    assert np.array_equal(whole[:, part], sliced)


@pytest.mark.parametrize("num_joints", [3, 6, 7])
def test_damped_least_squares_minimises_its_objective(num_joints: int) -> None:
    random = np.random.default_rng(0)
    jacobian, error = random.normal(size=(6, num_joints, 20)), random.normal(size=(6, 20))
    pull, damping = random.normal(size=(num_joints, 20)), 0.1
    solved = damped_least_squares(jacobian, error, damping, pull)
    for i in range(20):
        stacked = np.vstack([jacobian[..., i], damping * np.eye(num_joints)])
        right = np.concatenate([error[:, i], damping * pull[:, i]])
        expected = np.linalg.lstsq(stacked, right, rcond=None)[0]
        np.testing.assert_allclose(solved[:, i], expected, atol=1e-9)


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e", "so101"])
def test_link_frames_equal_mujocos_bodies(name: str) -> None:
    robot = load_robot(name)
    model = mujoco.MjSpec.from_file(str(robot.urdf_path)).compile()
    data = mujoco.MjData(model)
    q = random_joints(robot.chain, 10)
    frames = ChainFrames(robot.chain).at(columns(q))
    origins, rotations_found = frames.origin, frames.rotation
    np.testing.assert_array_equal(origins[:, 0], 0.0)
    np.testing.assert_array_equal(rotations_found[:, :, 0, 0], np.eye(3))
    for i in range(len(q)):
        data.qpos[: q.shape[1]] = q[i].numpy()
        mujoco.mj_forward(model, data)
        for j, joint in enumerate(robot.arm_joints, start=1):
            body = model.jnt_bodyid[model.joint(joint).id]
            np.testing.assert_allclose(origins[:, j, i], data.xpos[body], atol=1e-9)
            turned = data.xmat[body].reshape(3, 3)
            np.testing.assert_allclose(rotations_found[:, :, j, i], turned, atol=1e-9)


def test_link_frames_slide_along_prismatic_joints() -> None:
    chain = SerialChain.from_urdf(parse_urdf(MIXED, "mixed.urdf"), "a", "tip")
    q = np.array([[0.2, -0.4], [0.7, -2.0], [-0.3, 0.5]])
    frames = ChainFrames(chain).at(q)
    origins, turned = frames.origin, frames.rotation
    tip, rotation = chain.forward_columns(q)
    weld = parse_urdf(MIXED, "mixed.urdf").joint("weld")
    for i in range(2):
        np.testing.assert_allclose(
            origins[:, 3, i] + turned[:, :, 3, i] @ weld.translation, tip[:, i], atol=1e-12
        )
        np.testing.assert_allclose(
            turned[:, :, 3, i] @ weld.rotation, rotation[..., i], atol=1e-12
        )


@pytest.mark.parametrize("num_joints", [3, 5, 6, 7])
def test_manipulability_is_the_product_of_singular_values(num_joints: int) -> None:
    jacobian = np.random.default_rng(0).normal(size=(6, num_joints, 20))
    values = np.linalg.svd(np.moveaxis(jacobian, -1, 0), compute_uv=False)
    np.testing.assert_allclose(manipulability(jacobian), values.prod(axis=1), rtol=1e-9)
    parts = [manipulability(jacobian[..., i : i + 1])[0] for i in range(20)]
    assert np.array_equal(manipulability(jacobian), parts)


def test_manipulability_vanishes_where_the_elbow_is_stretched() -> None:
    robot = load_robot("ur5e")
    home = robot.home[:6].numpy()[:, None].repeat(2, axis=1)
    home[2, 1] = 0.0
    bent, stretched = manipulability(robot.chain.pose(home).jacobian)
    assert bent > 0.05 and stretched < 1e-6
    assert manipulability(np.zeros((6, 7, 3))).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e", "so101"])
def test_home_is_far_from_the_deployed_limit_of_manipulability(name: str) -> None:
    robot = load_robot(name)
    home = robot.home[: robot.chain.num_joints].numpy()[:, None]
    found = manipulability(robot.chain.pose(home).jacobian)[0]
    assert 0.0 < 4.0 * robot.safety.manipulability < found


def test_rotation_error_points_along_the_rotation_at_any_angle() -> None:
    angle = torch.tensor([1e-6, 0.3, 1.5, 1.7, 3.0], dtype=torch.float64)
    desired = rotations.quaternion_to_matrix(quaternion_from_yaw(angle))
    start = torch.eye(3, dtype=torch.float64).repeat(5, 1, 1)
    error = rotation_error(columns(start), columns(desired))
    np.testing.assert_allclose(error[:2], 0.0, atol=1e-15)
    assert (np.diff(error[2]) > 0).all()
    np.testing.assert_allclose(error[2, :2], np.sin(angle[:2].numpy()), rtol=1e-9)


def bounds(robot: Robot) -> Tensor:
    """Return the workspace's lower and upper corner (2, 3)."""
    return torch.tensor([robot.workspace[axis] for axis in "xyz"], dtype=torch.float64).T


def workspace_poses(robot: Robot, num: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    low, high = bounds(robot)
    unit = torch.rand(num, 4, generator=generator, dtype=torch.float64)
    return low + (high - low) * unit[:, :3], 2.0 * (unit[:, 3] - 0.5)


@pytest.mark.parametrize("name", ["franka_fr3", "ur5e"])
def test_inverse_kinematics_reaches_the_whole_workspace(name: str) -> None:
    robot = load_robot(name)
    num_arm = robot.chain.num_joints
    tip, yaw = workspace_poses(robot, 500)
    corners = torch.cartesian_prod(*bounds(robot).T)
    tip, yaw = torch.cat([tip, corners]), torch.cat([yaw, torch.zeros(8).double()])
    desired = rotations.pointing_down(yaw)
    q = solve_ik(robot.chain, tip, desired, robot.home[None, :num_arm].repeat(len(tip), 1))
    position, rotation = robot.chain.forward(q)
    assert (position - tip).norm(dim=-1).max() < 1e-6
    assert angle_between(rotation, desired).max() < 1e-5
    lower, upper = torch.from_numpy(robot.chain.lower.T), torch.from_numpy(robot.chain.upper.T)
    assert ((q >= lower) & (q <= upper)).all()


def test_inverse_kinematics_rows_have_the_same_bits_in_any_batch(robot: Robot) -> None:
    tip, yaw = workspace_poses(robot, 64)
    desired, start = rotations.pointing_down(yaw), robot.home[None, :7].repeat(64, 1)
    together = solve_ik(robot.chain, tip, desired, start)
    for i in (0, 5, 63):
        row = slice(i, i + 1)
        assert torch.equal(
            solve_ik(robot.chain, tip[row], desired[row], start[row])[0], together[i]
        )


def test_an_unreachable_pose_ends_within_limits_and_finite(robot: Robot) -> None:
    tip = torch.tensor([[2.0, 0.0, 0.5]], dtype=torch.float64)
    q = solve_ik(
        robot.chain, tip, rotations.pointing_down(torch.zeros(1).double()), robot.home[None, :7]
    )
    assert q.isfinite().all()
    assert (q[0].numpy() <= robot.chain.upper[:, 0]).all()


def test_a_chain_without_a_moving_joint_is_refused() -> None:
    urdf = parse_urdf(MIXED, "mixed.urdf")
    with pytest.raises(RobotError, match="no joint moves"):
        SerialChain.from_urdf(urdf, "d", "tip")
