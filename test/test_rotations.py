"""Rotation helpers against SciPy, and row by row."""

from __future__ import annotations

import numpy as np
import torch
from rotation_helpers import quaternion_from_yaw
from scipy.spatial.transform import Rotation
from torch import Tensor

from grpo_ros import rotations


def random_quaternions(num: int) -> Tensor:
    return torch.from_numpy(Rotation.random(num, random_state=0).as_quat())


def test_matrices_equal_scipy() -> None:
    quaternion = random_quaternions(500)
    expected = Rotation.from_quat(quaternion.numpy()).as_matrix()
    np.testing.assert_allclose(rotations.quaternion_to_matrix(quaternion), expected, atol=1e-14)


def test_quaternions_survive_the_way_to_matrices_and_back() -> None:
    half_turns = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]])
    quaternion = torch.cat([random_quaternions(500), half_turns.double()])
    back = rotations.matrix_to_quaternion(rotations.quaternion_to_matrix(quaternion))
    same = (back * quaternion).sum(-1).abs()
    np.testing.assert_allclose(same, 1.0, atol=1e-14)
    assert (back[:, 3] >= 0).all()


def test_a_scaled_quaternion_is_the_same_rotation() -> None:
    quaternion = random_quaternions(10)
    expected = rotations.quaternion_to_matrix(quaternion)
    torch.testing.assert_close(rotations.quaternion_to_matrix(3.0 * quaternion), expected)


def test_yaw_is_the_heading_of_the_x_axis() -> None:
    quaternion = random_quaternions(500)
    matrix = rotations.quaternion_to_matrix(quaternion)
    expected = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])
    torch.testing.assert_close(rotations.yaw_of_quaternion(quaternion), expected)
    torch.testing.assert_close(rotations.yaw_of_matrix(matrix), expected)
    yaw = torch.linspace(-3.1, 3.1, 50, dtype=torch.float64)
    back = rotations.yaw_of_quaternion(quaternion_from_yaw(yaw))
    torch.testing.assert_close(back, yaw)


def test_a_tool_that_points_down_has_its_yaw_and_z_downwards() -> None:
    yaw = torch.linspace(-3.1, 3.1, 50, dtype=torch.float64)
    matrix = rotations.pointing_down(yaw)
    torch.testing.assert_close(rotations.yaw_of_matrix(matrix), yaw)
    torch.testing.assert_close(matrix[:, 2, 2], torch.full_like(yaw, -1.0))
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones_like(yaw))


def test_any_leading_shape_is_taken() -> None:
    yaw = torch.tensor(0.3, dtype=torch.float64)
    torch.testing.assert_close(rotations.yaw_of_matrix(rotations.pointing_down(yaw)), yaw)
    grid = yaw.expand(2, 3)
    assert rotations.yaw_of_quaternion(quaternion_from_yaw(grid)).shape == (2, 3)


def test_each_row_is_bit_identical_to_the_row_alone() -> None:
    # Regression: torch.atan2 differs in the last bit between a batch of 1 and one of 300.
    quaternion = random_quaternions(300)
    matrix = rotations.quaternion_to_matrix(quaternion)
    for function, batch in (
        (rotations.quaternion_to_matrix, quaternion),
        (rotations.matrix_to_quaternion, matrix),
        (rotations.yaw_of_quaternion, quaternion),
        (rotations.yaw_of_matrix, matrix),
        (rotations.pointing_down, quaternion[:, 0]),
    ):
        together = function(batch)
        for i in range(len(batch)):
            assert torch.equal(function(batch[i : i + 1])[0], together[i]), function.__name__
