"""What simulated cameras publish: images, and how a point is seen in them."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CameraInfo, Image

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.errors import SimulatorError
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.link_transforms import Transform
from grpo_ros.tasks.camera import Camera

Pixels = npt.NDArray[np.uint8]


class CameraOutput:
    """Publishers of the task's cameras: <camera>/image_raw and <camera>/camera_info.

    Images are drawn in the caller's thread, and only where somebody listens.

    Args:
        node: that publishes.
        sim: whose scene is seen.
        is_needed: whether a policy that is to be served sees images.

    Raises:
        SimulatorError: they are needed, and nothing renders here. Not needed, they are left out,
            and the log says why.
    """

    def __init__(self, node: Any, sim: SimulatedRobot, is_needed: bool = False) -> None:
        self.sim = sim
        self._cameras = tuple(sim.simulator.task.cameras())
        try:
            for camera in self._cameras:
                sim.image(camera.name)
        except SimulatorError as problem:
            if is_needed:
                raise SimulatorError(
                    f"the policy sees images of '{camera.name}': {problem.what}",
                    expected="a simulator that renders",
                    remedy=problem.remedy,
                ) from problem
            node.get_logger().warning(f"no images: {problem}")
            self._cameras = ()
        self._outs = [
            (
                camera,
                node.create_publisher(Image, f"{camera.name}/image_raw", qos.STATE),
                node.create_publisher(CameraInfo, f"{camera.name}/camera_info", qos.STATE),
            )
            for camera in self._cameras
        ]

    def transforms(self) -> list[Transform]:
        """Return where the cameras' optical frames are in the robot's base frame."""
        base = self.sim.robot.base_frame
        return [
            (base, optical_frame(camera), [*camera.eye, *camera.optical_quaternion])
            for camera in self._cameras
        ]

    def publish(self, stamp_ns: int) -> None:
        """Publish what each camera sees now, as far as somebody listens."""
        for camera, images, infos in self._outs:
            if infos.get_subscription_count():
                infos.publish(camera_info(stamp_ns, camera))
            if images.get_subscription_count():
                images.publish(image(stamp_ns, camera, self.sim.image(camera.name)))


def optical_frame(camera: Camera) -> str:
    """Return the name of the frame in which a camera sees: x right, y down, z ahead (REP 103)."""
    return f"{camera.name}_optical_frame"


def image(stamp_ns: int, camera: Camera, pixels: Pixels) -> Image:
    """Return the message of an image (H, W, 3), rgb8."""
    message = Image()
    message.header.stamp = messages.to_time(stamp_ns)
    message.header.frame_id = optical_frame(camera)
    message.height, message.width, num_channels = pixels.shape
    message.encoding, message.step = "rgb8", message.width * num_channels
    message.data = array("B", pixels.tobytes())
    return message


def camera_info(stamp_ns: int, camera: Camera) -> CameraInfo:
    """Return the calibration of a pinhole without distortion (sensor_msgs/CameraInfo)."""
    message = CameraInfo()
    message.header.stamp = messages.to_time(stamp_ns)
    message.header.frame_id = optical_frame(camera)
    message.height, message.width = camera.height, camera.width
    message.distortion_model, message.d = "plumb_bob", [0.0] * 5
    intrinsics = camera.intrinsics
    message.k, message.r = intrinsics.ravel(), np.eye(3).ravel()
    message.p = np.hstack([intrinsics, np.zeros((3, 1))]).ravel()
    return message
