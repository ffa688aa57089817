"""Messages from and to arrays.

Numeric sequences go out as `array.array` and come in through `np.asarray`: lists and numpy arrays
take other, far slower ways. Times are integer nanoseconds; quaternions x, y, z, w.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration, Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import Pose, PoseStamped, TransformStamped, Twist
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from grpo_ros.deployment.safety.curve import Curve

Array = npt.NDArray[np.float64]
NANOSECONDS = 1_000_000_000


def to_ns(stamp: Time | Duration) -> int:
    """Return a stamp or duration in nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def to_time(nanoseconds: int) -> Time:
    """Return nanoseconds as a stamp."""
    sec, nanosec = divmod(nanoseconds, NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def to_duration(nanoseconds: int) -> Duration:
    """Return nanoseconds as a duration."""
    sec, nanosec = divmod(nanoseconds, NANOSECONDS)
    return Duration(sec=sec, nanosec=nanosec)


def to_doubles(values: npt.ArrayLike) -> array[float]:
    """Return numbers as what a float64[] field takes at once."""
    return array("d", np.ascontiguousarray(values, dtype=np.float64).tobytes())


def from_doubles(values: array[float] | Sequence[float]) -> Array:
    """Return a float64[] field as an array of its own."""
    return np.array(values, dtype=np.float64)


def joint_state(
    stamp_ns: int, names: Sequence[str], position: npt.ArrayLike, velocity: npt.ArrayLike
) -> JointState:
    """Return a joint state of J joints, positions in rad or m."""
    message = JointState()
    message.header.stamp = to_time(stamp_ns)
    message.name = list(names)
    message.position = to_doubles(position)
    message.velocity = to_doubles(velocity)
    return message


def pose(stamp_ns: int, frame: str, values: Sequence[float]) -> PoseStamped:
    """Return a pose from x, y, z in m and x, y, z, w."""
    message = PoseStamped()
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id = frame
    set_pose(message.pose, values)
    return message


def set_pose(pose: Pose, values: Sequence[float]) -> None:
    """Put x, y, z in m and x, y, z, w into a pose."""
    point, turn = pose.position, pose.orientation
    point.x, point.y, point.z, turn.x, turn.y, turn.z, turn.w = values


def transform(stamp_ns: int, frame: str, child: str, values: Sequence[float]) -> TransformStamped:
    """Return a transform from x, y, z in m and x, y, z, w."""
    message = TransformStamped()
    message.header.stamp = to_time(stamp_ns)
    message.header.frame_id, message.child_frame_id = frame, child
    shift, turn = message.transform.translation, message.transform.rotation
    shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w = values
    return message


def trajectory(
    stamp_ns: int, names: Sequence[str], points: Array, period_ns: int
) -> JointTrajectory:
    """Return targets (R, J), point r due r + 1 periods after the stamp; stamp 0 means at once."""
    message = JointTrajectory()
    message.header.stamp = to_time(stamp_ns)
    message.joint_names = list(names)
    message.points = [
        JointTrajectoryPoint(
            positions=to_doubles(point), time_from_start=to_duration((row + 1) * period_ns)
        )
        for row, point in enumerate(points)
    ]
    return message


def curve_trajectory(stamp_ns: int, names: Sequence[str], curve: Curve) -> JointTrajectory:
    """Return a motion that begins at the stamp: positions and velocities at its knots."""
    message = JointTrajectory()
    message.header.stamp = to_time(stamp_ns)
    message.joint_names = list(names)
    message.points = [
        JointTrajectoryPoint(
            positions=to_doubles(position),
            velocities=to_doubles(velocity),
            time_from_start=to_duration(round(time_s * NANOSECONDS)),
        )
        for time_s, position, velocity in zip(
            curve.times, curve.positions, curve.velocities, strict=True
        )
    ]
    return message


def curve_of(message: JointTrajectory) -> Curve:
    """Return the motion of a trajectory with positions and velocities.

    Raises:
        ValueError: a point lacks one of them, or has another number of values.
    """
    shape = len(message.points), len(message.joint_names)
    positions = np.array([point.positions for point in message.points], dtype=np.float64)
    velocities = np.array([point.velocities for point in message.points], dtype=np.float64)
    if positions.shape != shape or velocities.shape != shape:
        raise ValueError(f"points of shape {positions.shape} and {velocities.shape}, not {shape}")
    times = [to_ns(point.time_from_start) / NANOSECONDS for point in message.points]
    return Curve(np.array(times), positions, velocities)


def twist(velocity: Array) -> Twist:
    """Return a base's twist from linear_x in m/s and angular_z in rad/s."""
    message = Twist()
    message.linear.x, message.angular.z = float(velocity[0]), float(velocity[1])
    return message


def trajectory_points(message: JointTrajectory) -> tuple[Array, list[int]]:
    """Return the positions (R, J) of a trajectory and the R times from its start, ns.

    Raises:
        ValueError: a point has another number of positions than there are joints, a position is
            not finite, or the times do not increase.
    """
    width = len(message.joint_names)
    for row, point in enumerate(message.points):
        if len(point.positions) != width:
            raise ValueError(f"point {row} has {len(point.positions)} positions, not {width}")
    points = np.array([point.positions for point in message.points], dtype=np.float64)
    points = points.reshape(len(message.points), width)
    if not np.isfinite(points).all():
        raise ValueError("a position is not finite")
    times = [to_ns(point.time_from_start) for point in message.points]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError("times from start do not increase")
    return points, times


def status(
    level: bytes, name: str, message: str, values: Mapping[str, object], hardware: str = ""
) -> DiagnosticStatus:
    """Return a diagnostic status; values are written with str()."""
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware, values=pairs
    )
