"""Rotations of batches: matrices, quaternions (x, y, z, w) and yaw, in torch.

Row i of a result depends on row i alone, bit for bit, on a CPU: torch's own arctangent gives other
last bits in a batch of 1 than in a batch of 64, so angles go through `elementary`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo_ros.elementary import arctangent2, sine_cosine


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Return the rotation matrices (..., 3, 3) of quaternions (..., 4) of any non-zero norm."""
    x, y, z, w = _columns(quaternion)
    s = 2.0 / (x * x + y * y + z * z + w * w)
    entries = [
        1.0 - s * (y * y + z * z),
        s * (x * y - z * w),
        s * (x * z + y * w),
        s * (x * y + z * w),
        1.0 - s * (x * x + z * z),
        s * (y * z - x * w),
        s * (x * z - y * w),
        s * (y * z + x * w),
        1.0 - s * (x * x + y * y),
    ]
    return torch.stack(entries, dim=-1).reshape(*quaternion.shape[:-1], 3, 3)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Return unit quaternions (..., 4) with w >= 0 of rotation matrices (..., 3, 3).

    Of the four ways to read a quaternion off a matrix, each row takes the one with the largest
    divisor (Shepperd 1978), so it is accurate near half turns too.
    """
    entries = _columns(matrix.reshape(*matrix.shape[:-2], 9))
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = entries
    squares = torch.stack(
        [
            1.0 + m00 - m11 - m22,
            1.0 - m00 + m11 - m22,
            1.0 - m00 - m11 + m22,
            1.0 + m00 + m11 + m22,
        ],
        dim=-1,
    )
    xy, xz, yz = m10 + m01, m20 + m02, m21 + m12
    xw, yw, zw = m21 - m12, m02 - m20, m10 - m01
    rows = [
        torch.stack([squares[..., 0], xy, xz, xw], dim=-1),
        torch.stack([xy, squares[..., 1], yz, yw], dim=-1),
        torch.stack([xz, yz, squares[..., 2], zw], dim=-1),
        torch.stack([xw, yw, zw, squares[..., 3]], dim=-1),
    ]
    candidates = torch.stack(rows, dim=-2)
    largest = torch.argmax(squares, dim=-1)[..., None, None]
    chosen = torch.gather(candidates, -2, largest.expand(*largest.shape[:-1], 4))[..., 0, :]
    chosen = torch.where(chosen[..., 3:] < 0.0, -chosen, chosen).contiguous()
    return normalise(chosen)


def normalise(quaternion: Tensor) -> Tensor:
    """Return quaternions (..., 4) scaled to unit norm."""
    x, y, z, w = _columns(quaternion)
    norm = torch.sqrt(x * x + y * y + z * z + w * w)
    return torch.stack([x / norm, y / norm, z / norm, w / norm], dim=-1)


def rotate(quaternion: Tensor, vector: Tensor) -> Tensor:
    """Return vectors (..., 3) turned by unit quaternions (..., 4): v + 2 u x (u x v + w v)."""
    u, w = quaternion[..., :3], quaternion[..., 3:]
    turned: Tensor = torch.linalg.cross(u, torch.linalg.cross(u, vector) + w * vector)
    return vector + 2.0 * turned


def conjugate(quaternion: Tensor) -> Tensor:
    """Return the inverse rotations (..., 4) of unit quaternions (..., 4)."""
    return torch.cat([-quaternion[..., :3], quaternion[..., 3:]], dim=-1)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the Hamilton products (..., 4): first `right`, then `left` turns."""
    u, v, s, t = left[..., :3], right[..., :3], left[..., 3:], right[..., 3:]
    scalar = s * t - (u * v).sum(-1, keepdim=True)
    return torch.cat([s * v + t * u + torch.linalg.cross(u, v), scalar], dim=-1)


def yaw_of_matrix(matrix: Tensor) -> Tensor:
    """Return the yaw (...,), the heading in rad of the x axis, of matrices (..., 3, 3)."""
    return _arctangent2(matrix[..., 1, 0], matrix[..., 0, 0])


def yaw_of_quaternion(quaternion: Tensor) -> Tensor:
    """Return the yaw (...,), the heading in rad of the x axis, of quaternions (..., 4)."""
    x, y, z, w = _columns(quaternion)
    return _arctangent2(2.0 * (x * y + z * w), w * w + x * x - y * y - z * z)


def pointing_down(yaw: Tensor) -> Tensor:
    """Return matrices (..., 3, 3) of a tool with z down and x heading along yaw (...,) rad."""
    s, c = sine_cosine_of(yaw)
    zero = torch.zeros_like(yaw)
    entries = [c, s, zero, s, -c, zero, zero, zero, zero - 1.0]
    return torch.stack(entries, dim=-1).reshape(*yaw.shape, 3, 3)


def sine_cosine_of(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return sine and cosine of angles of any shape, in rad."""
    if angle.device.type != "cpu":
        return torch.sin(angle), torch.cos(angle)
    both = sine_cosine(angle.detach().to(torch.float64).reshape(-1).numpy())
    sine, cosine = (torch.from_numpy(value).reshape(angle.shape).to(angle.dtype) for value in both)
    return sine, cosine


def _arctangent2(y: Tensor, x: Tensor) -> Tensor:
    """Return the angle of the points (x, y), in (-pi, pi]."""
    if y.device.type != "cpu":
        return torch.atan2(y, x)
    double = (value.detach().to(torch.float64).reshape(-1).numpy() for value in (y, x))
    return torch.from_numpy(arctangent2(*double)).reshape(y.shape).to(y.dtype)


def _columns(rows: Tensor) -> list[Tensor]:
    """Return the components of the last dimension, each contiguous."""
    return [rows[..., i].contiguous() for i in range(rows.shape[-1])]
