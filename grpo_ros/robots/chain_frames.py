"""Frames of all links of a serial chain at once: kinematics for few rows and little time.

`SerialChain` uses elementwise operations alone, some hundred for a pose, which costs a control
loop more than the arithmetic itself. Here each row's frames are a chain of 4 x 4 matrix products:
equal to those of `SerialChain` up to rounding, and like there row i depends on row i alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from grpo_ros.elementary import Array
from grpo_ros.robots.kinematics import SerialChain


@dataclasses.dataclass(frozen=True)
class LinkFrames:
    """Where a chain's links are, batch last.

    Attributes:
        origin: (3, A + 1, N) of the base and of the link that each joint moves, m.
        rotation: (3, 3, A + 1, N) of the same.
        tip: (3, N) position, m.
    """

    origin: Array
    rotation: Array
    tip: Array


class ChainFrames:
    """Computes the frames of a chain's links.

    Args:
        chain: from the base to the tip.
    """

    def __init__(self, chain: SerialChain) -> None:
        self.num_joints = chain.num_joints
        self._is_slide = np.array([kind == "prismatic" for kind in chain.joint_kinds])
        self._has_slide = bool(self._is_slide.any())
        # Transforms are affine in two numbers per joint: cosine and sine, or position and nothing.
        num = self.num_joints
        self._constant, self._first, self._second = np.zeros((3, num, 1, 4, 4))
        for j, (still, cosine, sine, offset, axis) in enumerate(chain.transforms()):
            self._constant[j, 0, :3, :3], self._constant[j, 0, :3, 3] = still, offset
            self._constant[j, 0, 3, 3] = 1.0
            if self._is_slide[j]:
                self._first[j, 0, :3, 3] = still @ axis
            else:
                self._first[j, 0, :3, :3], self._second[j, 0, :3, :3] = cosine, sine
        self._tip = np.array([*chain.tip_offset, 1.0])[:, None]
        self._axes = np.array(chain.axes).T[:, :, None]
        self._are_z = bool((self._axes == [[[0.0]], [[0.0]], [[1.0]]]).all())

    def at(self, q: Array) -> LinkFrames:
        """Return the frames for joint positions (A, N), batch last, rad or m."""
        cosine, sine = np.cos(q), np.sin(q)
        if self._has_slide:
            cosine[self._is_slide], sine[self._is_slide] = q[self._is_slide], 0.0
        local = cosine[..., None, None] * self._first
        local += sine[..., None, None] * self._second
        local += self._constant
        links = np.empty((self.num_joints + 1, q.shape[1], 4, 4))
        links[0] = np.eye(4)
        links[1] = local[0]
        for j in range(1, self.num_joints):
            np.matmul(links[j], local[j], out=links[j + 1])
        tip = (links[-1] @ self._tip)[:, :3, 0].T
        parts = np.ascontiguousarray(links.transpose(2, 3, 0, 1))
        return LinkFrames(parts[:3, 3], parts[:3, :3], tip)

    def jacobian(self, frames: LinkFrames) -> Array:
        """Return the tip's geometric Jacobian (N, 6, A), linear over angular velocity."""
        rotation, origin = frames.rotation[:, :, 1:], frames.origin[:, 1:]
        axes = rotation[:, 2]
        if not self._are_z:
            axes = axes * self._axes[2]
            axes += rotation[:, 0] * self._axes[0]
            axes += rotation[:, 1] * self._axes[1]
        arm = frames.tip[:, None] - origin
        jacobian = np.empty((6, *arm.shape[1:]))
        for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
            jacobian[k] = axes[i] * arm[j] - axes[j] * arm[i]
        jacobian[3:] = axes
        if self._has_slide:
            jacobian[:3, self._is_slide] = axes[:, self._is_slide]
            jacobian[3:, self._is_slide] = 0.0
        return np.ascontiguousarray(jacobian.transpose(2, 0, 1))


def manipulability_of(jacobian: Array) -> Array:
    """Return `kinematics.manipulability` (N,) of Jacobians (N, 6, A), by a library's determinant.

    Equal to it up to rounding: beside 1e-12 times the largest value that an arm reaches.
    """
    turned = jacobian.transpose(0, 2, 1)
    gram = jacobian @ turned if jacobian.shape[2] >= 6 else turned @ jacobian
    return np.asarray(np.sqrt(np.maximum(np.linalg.det(gram), 0.0)))
