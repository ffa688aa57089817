"""Kinematics of a serial chain: forward, Jacobian and damped least squares, batched.

Row i of every result depends on row i of the input alone, bit for bit, whatever the batch size:
only elementwise IEEE operations are used, never a matrix product of a library, whose blocking
changes with the batch. Inside, arrays have the batch last; the public methods take rows first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from grpo_ros.elementary import Array, sine_cosine
from grpo_ros.errors import RobotError
from grpo_ros.robots.urdf import Urdf, UrdfJoint


@dataclasses.dataclass(frozen=True)
class Posed:
    """Where the tip is, and how it moves with the joints; batch last.

    Attributes:
        position: (3, N) of the tip in the base frame, m.
        rotation: (3, 3, N) of the tip in the base frame.
        jacobian: (6, A, N) linear over angular velocity of the tip in the base frame.
    """

    position: Array
    rotation: Array
    jacobian: Array


class SerialChain:
    """The moving joints between two links, fixed joints folded into constants.

    Args:
        joints: joints from the base link to the tip link, in order, fixed ones included.
        file: for messages.

    Raises:
        RobotError: nothing moves between base and tip.
    """

    def __init__(self, joints: Sequence[UrdfJoint], file: str = "") -> None:
        moving = [joint for joint in joints if joint.is_moving]
        if not moving:
            raise RobotError(
                f"{file}: no joint moves between base and tip", expected="at least one"
            )
        self.joint_names = tuple(joint.name for joint in moving)
        self.num_joints = len(moving)
        self.lower = np.array([[joint.lower] for joint in moving])
        self.upper = np.array([[joint.upper] for joint in moving])
        self.joint_kinds = tuple(joint.kind for joint in moving)
        self._is_revolute = [joint.kind != "prismatic" for joint in moving]
        self._fold(joints)

    @classmethod
    def from_urdf(cls, urdf: Urdf, base: str, tip: str) -> SerialChain:
        """Return the chain from link `base` to link `tip` of a URDF."""
        return cls(urdf.chain(base, tip), urdf.file)

    def _fold(self, joints: Sequence[UrdfJoint]) -> None:
        """Fold fixed transforms into the constants of the joint that follows them.

        The rotation of joint i within its predecessor's frame is A + B cos q + C sin q with
        A = F a a^T, B = F (I - a a^T), C = F [a]x, for the fixed rotation F and the axis a.
        """
        rotation: Array = np.eye(3)
        translation: Array = np.zeros(3)
        offsets, axes, constants = [], [], []
        for joint in joints:
            translation = translation + rotation @ joint.translation
            rotation = rotation @ joint.rotation
            if not joint.is_moving:
                continue
            a = joint.axis
            cross = np.array([[0.0, -a[2], a[1]], [a[2], 0.0, -a[0]], [-a[1], a[0], 0.0]])
            along, turning = np.outer(a, a), np.eye(3) - np.outer(a, a)
            if joint.kind == "prismatic":
                along, turning, cross = np.eye(3), np.zeros((3, 3)), np.zeros((3, 3))
            constants.append((rotation @ along, rotation @ turning, rotation @ cross))
            offsets.append(tuple(float(v) for v in translation))
            axes.append(tuple(float(v) for v in a))
            rotation, translation = np.eye(3), np.zeros(3)
        self._constant, self._cosine, self._sine = (
            np.stack([parts[k] for parts in constants])[..., None] for k in range(3)
        )
        self._offsets, self._axes = offsets, axes
        self._tip_offset = tuple(float(v) for v in translation)
        self._tip_rotation = None if np.array_equal(rotation, np.eye(3)) else rotation[..., None]

    @property
    def axes(self) -> list[tuple[float, ...]]:
        """Axis of each joint in its own link's frame."""
        return self._axes

    @property
    def tip_offset(self) -> tuple[float, ...]:
        """Position of the tip in the last link's frame, m."""
        return self._tip_offset

    def transforms(self) -> Iterator[tuple[Array, Array, Array, Array, Array]]:
        """Return A, B, C (3, 3) of each joint as `_fold` has them, its offset and axis (3,)."""
        for j in range(self.num_joints):
            still, cosine, sine = (
                parts[j, ..., 0] for parts in (self._constant, self._cosine, self._sine)
            )
            yield still, cosine, sine, np.array(self._offsets[j]), np.array(self._axes[j])

    def forward(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tip's position (N, 3) in m and rotation (N, 3, 3) in the base frame.

        Args:
            q: (N, A) joint positions, rad or m.
        """
        position, rotation = self.forward_columns(columns(q))
        return rows(position, q), rows(rotation, q)

    def jacobian(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return position (N, 3), rotation (N, 3, 3) and Jacobian (N, 6, A) of the tip.

        The Jacobian is geometric, in the base frame, linear over angular velocity.
        """
        posed = self.pose(columns(q))
        return rows(posed.position, q), rows(posed.rotation, q), rows(posed.jacobian, q)

    def forward_columns(self, q: Array) -> tuple[Array, Array]:
        """Return position (3, N) and rotation (3, 3, N) of the tip for q (A, N), batch last."""
        position, rotation, _, _ = self._frames(q)
        return position, rotation

    def pose(self, q: Array) -> Posed:
        """Return pose and Jacobian of the tip for joint positions (A, N), batch last."""
        position, rotation, origins, axes = self._frames(q)
        ax, ay, az = axes[:, 0], axes[:, 1], axes[:, 2]
        arm = position - origins
        rx, ry, rz = arm[:, 0], arm[:, 1], arm[:, 2]
        jacobian = np.empty((6, *q.shape))
        jacobian[0] = ay * rz - az * ry
        jacobian[1] = az * rx - ax * rz
        jacobian[2] = ax * ry - ay * rx
        jacobian[3], jacobian[4], jacobian[5] = ax, ay, az
        for j, is_revolute in enumerate(self._is_revolute):
            if not is_revolute:
                jacobian[:3, j] = axes[j]
                jacobian[3:, j] = 0.0
        return Posed(position, rotation, jacobian)

    def _frames(self, q: Array) -> tuple[Array, Array, Array, Array]:
        """Return tip position (3, N), rotation (3, 3, N), joint origins and axes (A, 3, N)."""
        local = self._turns(q)
        origins, axes = np.empty((2, self.num_joints, 3, q.shape[1]))
        rotation = local[0]
        position: Array = np.zeros((3, q.shape[1]))
        for j in range(self.num_joints):
            position, rotation = self._onward(j, position, rotation, local)
            origins[j] = position
            axes[j] = _add_rotated(None, rotation, self._axes[j])
            if not self._is_revolute[j]:
                position = position + axes[j] * q[j]
        position = _add_rotated(position, rotation, self._tip_offset)
        if self._tip_rotation is not None:
            rotation = _product(rotation, self._tip_rotation)
        return position, rotation, origins, axes

    def _turns(self, q: Array) -> Array:
        """Return the rotation (A, 3, 3, N) of every moved link in its predecessor's frame."""
        sine, cosine = sine_cosine(q)
        local = self._cosine * cosine[:, None, None]
        local += self._sine * sine[:, None, None]
        local += self._constant
        return local

    def _onward(
        self, j: int, position: Array, rotation: Array, local: Array
    ) -> tuple[Array, Array]:
        """Return origin and rotation of joint j's link before it slides, from those before it."""
        if j == 0:
            return position + np.array(self._offsets[0])[:, None], rotation
        position = _add_rotated(position, rotation, self._offsets[j])
        return position, _product(rotation, local[j])


def columns(q: Tensor) -> Array:
    """Return a tensor (N, ...) as a contiguous float64 array (..., N)."""
    array = q.detach().to("cpu", torch.float64).numpy()
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))


def rows(array: Array, like: Tensor | None = None) -> Tensor:
    """Return an array (..., N) as a contiguous float64 tensor (N, ...) where `like` lies."""
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))
    return tensor if like is None else tensor.to(like.device)


def rotation_error(rotation: Array, desired: Array) -> Array:
    """Return the rotation vector (3, N) that turns `rotation` towards `desired` (3, 3, N).

    e = 1/2 sum_i r_i x d_i has the direction of the rotation and the length sin(angle); past a
    quarter turn it is lengthened to 2 - sin(angle), so that it never vanishes at a half turn.
    """
    r, d = rotation, desired
    error: Array = np.empty_like(r[0])
    for k, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        error[k] = 0.5 * (
            (r[i, 0] * d[j, 0] - r[j, 0] * d[i, 0])
            + (r[i, 1] * d[j, 1] - r[j, 1] * d[i, 1])
            + (r[i, 2] * d[j, 2] - r[j, 2] * d[i, 2])
        )
    trace: Array = np.zeros_like(r[0, 0])
    for i in range(3):
        trace = trace + (r[i, 0] * d[i, 0] + r[i, 1] * d[i, 1] + r[i, 2] * d[i, 2])
    length = np.sqrt(error[0] * error[0] + error[1] * error[1] + error[2] * error[2])
    factor = (2.0 - length) / np.maximum(length, 1e-9)
    error *= np.where(trace < 1.0, factor, 1.0)
    return error


def damped_least_squares(
    jacobian: Array, error: Array, damping: float, pull: Array | None = None
) -> Array:
    """Return dq (A, N) that minimises |J dq - e|^2 + damping^2 |dq - pull|^2.

    dq = pull + J^T (J J^T + damping^2 I)^-1 (e - J pull), by an LDL^T factorisation of the 6x6
    matrix written out in elementwise operations.

    Args:
        jacobian: (6, A, N).
        error: (6, N).
        damping: > 0; larger is slower and steadier near singular poses.
        pull: (A, N) motion preferred where the task leaves a choice.
    """
    size, num_joints, _ = jacobian.shape
    system = np.empty((size + 1, size, jacobian.shape[2]))
    gram = system[:size]
    np.multiply(jacobian[:, None, 0], jacobian[None, :, 0], out=gram)
    for j in range(1, num_joints):
        gram += jacobian[:, None, j] * jacobian[None, :, j]
    for i in range(size):
        gram[i, i] += damping * damping
    residual = system[size]
    residual[:] = error
    if pull is not None:
        for j in range(num_joints):
            residual -= jacobian[:, j] * pull[j]
    # The residual stands below the matrix as one more row: eliminating both is the forward solve.
    for k in range(size):
        pivot_column = system[k + 1 :, k] / system[k, k]
        system[k + 1 :, k + 1 :] -= pivot_column[:, None] * system[None, k + 1 : size, k]
        system[k + 1 :, k] = pivot_column
    for k in range(size - 1, 0, -1):
        residual[:k] -= system[k, :k] * residual[k]
    dq: Array = jacobian[0] * residual[0]
    for i in range(1, size):
        dq += jacobian[i] * residual[i]
    return dq if pull is None else dq + pull


def manipulability(jacobian: Array) -> Array:
    """Return how far the arm is from a singular pose, (N,): w = sqrt(det(J J^T)).

    With fewer than six joints J J^T is always singular and w = sqrt(det(J^T J)). The determinant
    is the product of the pivots of an elimination. Units are mixed (m and rad): compare the w of
    one arm only. Yoshikawa, "Manipulability of Robotic Mechanisms", IJRR 4(2), 1985.

    Args:
        jacobian: (6, A, N), batch last.
    """
    wide = jacobian if jacobian.shape[1] >= jacobian.shape[0] else jacobian.swapaxes(0, 1)
    gram = np.zeros((len(wide), len(wide), wide.shape[2]))
    for j in range(wide.shape[1]):
        gram += wide[:, None, j] * wide[None, :, j]
    determinant: Array = np.ones(wide.shape[2])
    for k in range(len(gram)):
        pivot = gram[k, k]
        determinant = determinant * np.maximum(pivot, 0.0)
        column = gram[k + 1 :, k] / np.where(pivot > 0.0, pivot, 1.0)
        gram[k + 1 :, k + 1 :] -= column[:, None] * gram[None, k, k + 1 :]
    return np.sqrt(determinant)


def solve_ik(
    chain: SerialChain,
    position: Tensor,
    rotation: Tensor,
    q0: Tensor,
    iterations: int = 30,
    damping: float = 0.01,
    max_step: float = 0.5,
) -> Tensor:
    """Return joint positions (N, A) within limits whose tip is at the given poses.

    A fixed number of damped least-squares iterations from q0; unreachable poses give the nearest
    that was found, so a caller checks `chain.forward`.

    Args:
        chain: the arm.
        position: (N, 3) of the tip in the base frame, m.
        rotation: (N, 3, 3) of the tip in the base frame.
        q0: (N, A) where to start.
        iterations: how many steps; 30 leave less than 1e-6 m within the workspace.
        damping: of each step.
        max_step: largest change of a joint per iteration, rad or m.
    """
    target, desired = columns(position), columns(rotation)
    q = np.clip(columns(q0), chain.lower, chain.upper)
    for _ in range(iterations):
        posed = chain.pose(q)
        error = np.concatenate([target - posed.position, rotation_error(posed.rotation, desired)])
        step = damped_least_squares(posed.jacobian, error, damping)
        q = np.clip(q + np.clip(step, -max_step, max_step), chain.lower, chain.upper)
    return rows(q, q0)


def _add_rotated(start: Array | None, rotation: Array, vector: Sequence[float]) -> Array:
    """Return start + rotation vector, (3, N); components that are 0 are left out."""
    total = start
    for k, component in enumerate(vector):
        if component == 0.0:
            continue
        term = rotation[:, k] if component == 1.0 else rotation[:, k] * component
        total = term if total is None else total + term
    return np.zeros_like(rotation[:, 0]) if total is None else total


def _product(left: Array, right: Array) -> Array:
    """Return the matrix products (3, 3, N), summed in a fixed order."""
    product = left[:, 0, None] * right[None, 0]
    product += left[:, 1, None] * right[None, 1]
    product += left[:, 2, None] * right[None, 2]
    return product
