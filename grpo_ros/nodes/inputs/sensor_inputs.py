"""Sensor inputs: joint states, odometry, laser scans and images, from messages to the buffer."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image, JointState, LaserScan

from grpo_ros.deployment.inputs.camera_images import rgb_from_compressed, rgb_from_raw
from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.deployment.inputs.observation_buffer import UNIT_TOLERANCE
from grpo_ros.deployment.inputs.range_readings import nearest_beams, read_ranges
from grpo_ros.nodes.inputs.intake import Intake
from grpo_ros.nodes.inputs.transform_tree import TransformTree
from grpo_ros.nodes.shared import messages
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]
JUMP_BACK_NS = messages.NANOSECONDS
"""A joint's stamp that is older by more means that time began anew."""
MAX_OFFSET_M = 0.05
"""A laser further from the base's axis measures other ranges than the one in training."""
MIN_UPRIGHT = math.cos(math.radians(5.0))


class SensorInputs:
    """Takes what a robot's drivers measure.

    Args:
        intake: that stores it.
        robot: that is measured.
        tree: that knows where a laser is mounted.
        scan_range_m: what a beam that met nothing read in training; 0: what the contract says.
        on_jump_back: called before a state of needed joints that is older by more than
            `JUMP_BACK_NS` than the last one; None: it is refused as out of order.
    """

    def __init__(
        self,
        intake: Intake,
        robot: Robot,
        tree: TransformTree,
        scan_range_m: float = 0.0,
        on_jump_back: Callable[[], None] | None = None,
    ) -> None:
        self._intake, self._robot, self._tree = intake, robot, tree
        self._buffer, self._scan_range_m = intake.buffer, scan_range_m
        self._on_jump_back = on_jump_back

    # ---------------------------------------------------------------- joints

    def on_joint_state(self, message: JointState) -> None:
        """Take the positions and velocities of joints."""
        position, velocity = map(messages.from_doubles, (message.position, message.velocity))
        put = functools.partial(self._put_joints, message.name, position, velocity)
        self._intake.take("joint state", message.header.stamp, put)

    def on_odometry(self, message: Odometry) -> None:
        """Take the place and the velocity of a base as those of its joints x, y and yaw."""
        put = functools.partial(self._put_odometry, message)
        self._intake.take("odometry", message.header.stamp, put)

    def _put_joints(
        self, names: list[str], position: Array, velocity: Array, stamp_ns: int, arrival_s: float
    ) -> bool:
        driver = self._robot.driver_gripper
        if driver is not None:
            names, position, velocity = driver.states_from_driver(names, position, velocity)
        self._look_back(stamp_ns, names)
        return self._buffer.put_joint_state(stamp_ns, names, position, velocity, arrival_s)

    def _put_odometry(self, message: Odometry, stamp_ns: int, arrival_s: float) -> bool:
        frames = message.header.frame_id, message.child_frame_id
        wanted = self._robot.base_frame, self._robot.tip_frame
        if frames != wanted:
            raise InputRefusal(
                "frame", f"it is of '{frames[1]}' in '{frames[0]}'", expected=f"{wanted}"
            )
        pose, twist = message.pose.pose, message.twist.twist
        turn, speed = pose.orientation, twist.linear
        norm = math.hypot(turn.x, turn.y, turn.z, turn.w)
        if not abs(norm - 1.0) <= UNIT_TOLERANCE:
            raise InputRefusal(
                "quaternion", f"its quaternion has length {norm}", expected="one of length 1"
            )
        yaw = _yaw(turn.x, turn.y, turn.z, turn.w)
        cosine, sine = math.cos(yaw), math.sin(yaw)
        velocity = [
            cosine * speed.x - sine * speed.y,
            sine * speed.x + cosine * speed.y,
            twist.angular.z,
        ]
        names = list(self._robot.arm_joints)
        self._look_back(stamp_ns, names)
        known = float(self._buffer.position(names[2:])[0])
        if math.isfinite(known):  # the joint turns on, where the angle begins anew
            yaw += 2.0 * math.pi * round((known - yaw) / (2.0 * math.pi))
        place = np.array([pose.position.x, pose.position.y, yaw])
        return self._buffer.put_joint_state(stamp_ns, names, place, np.array(velocity), arrival_s)

    def _look_back(self, stamp_ns: int, names: list[str]) -> None:
        if self._on_jump_back is None or stamp_ns >= self._buffer.newest_joint_ns - JUMP_BACK_NS:
            return
        if not set(names).isdisjoint(self._buffer.joint_names):
            self._on_jump_back()

    # ---------------------------------------------------------------- laser

    def on_scan(self, sensor: str, message: LaserScan) -> None:
        """Take the beams of a scan that the policy was trained with."""
        put = functools.partial(self._put_scan, sensor, message)
        self._intake.take(f"scan '{sensor}'", message.header.stamp, put)

    def _put_scan(self, sensor: str, message: LaserScan, stamp_ns: int, arrival_s: float) -> bool:
        limit = self._scan_range_m or self._buffer.inputs.ranges.get(sensor)
        ranges = np.array(message.ranges, dtype=np.float64)
        beams = nearest_beams(
            message.angle_min,
            message.angle_increment,
            len(ranges),
            self._buffer.inputs.sensors[sensor],
            self._mounted_yaw(message.header.frame_id),
        )
        read = read_ranges(ranges[beams], message.range_min, message.range_max, limit)
        if self._scan_range_m:
            read = np.clip(read, 0.0, self._scan_range_m)
        return self._buffer.put_reading(stamp_ns, sensor, read, arrival_s)

    def _mounted_yaw(self, frame: str) -> float:
        """Return the yaw of a laser on the base; it has to be upright and on the base's axis."""
        base = self._robot.tip_frame
        if frame == base:
            return 0.0
        mount = self._tree.at(base, frame, 0)
        if mount is None:
            raise InputRefusal("frame", f"no transform from '{frame}' to '{base}'")
        x, y, z, w = mount[3:].tolist()
        if math.hypot(mount[0], mount[1]) > MAX_OFFSET_M or w * w + z * z - x * x - y * y < (
            MIN_UPRIGHT
        ):
            raise InputRefusal(
                "frame",
                f"'{frame}' is at {mount.tolist()} of '{base}'",
                expected=f"upright, and within {MAX_OFFSET_M} m of the axis, as in training",
            )
        return _yaw(x, y, z, w)

    # ---------------------------------------------------------------- images

    def on_image(self, camera: str, message: Image) -> None:
        """Take a raw image."""

        def put(stamp_ns: int, arrival_s: float) -> bool:
            data = np.frombuffer(message.data, dtype=np.uint8)
            pixels = rgb_from_raw(
                message.encoding, message.height, message.width, message.step, data
            )
            return self._buffer.put_image(stamp_ns, camera, pixels, arrival_s)

        self._intake.take(f"image of camera '{camera}'", message.header.stamp, put)

    def on_compressed(self, camera: str, message: CompressedImage) -> None:
        """Take a JPEG or PNG image."""

        def put(stamp_ns: int, arrival_s: float) -> bool:
            pixels = rgb_from_compressed(bytes(message.data), message.format)
            return self._buffer.put_image(stamp_ns, camera, pixels, arrival_s)

        self._intake.take(f"image of camera '{camera}'", message.header.stamp, put)


def _yaw(x: float, y: float, z: float, w: float) -> float:
    return math.atan2(2.0 * (x * y + z * w), w * w + x * x - y * y - z * z)
