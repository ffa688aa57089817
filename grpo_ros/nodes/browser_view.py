"""Browser view: a run, or a deployment, on a page for machines without RViz.

A process of its own that only listens. It shows what is published at `rate_hz` while a browser is
connected, and takes pictures of a camera, which somebody has to render, only then.

Subscribes, best effort where a later message makes up for a lost one:
    robot_description (std_msgs/String, latched), joint_states (sensor_msgs/JointState),
    /tf, /tf_static (tf2_msgs/TFMessage): the robot; transforms stand above joint states.
    <source>/markers, <source>/group_paths (visualization_msgs/MarkerArray): bodies and paths.
    <source>/status (diagnostic_msgs/DiagnosticStatus, latched): how deployed episodes ended.
    /diagnostics (diagnostic_msgs/DiagnosticArray): progress, success, rewards, alarms.
    <image_topic> (sensor_msgs/Image).
Parameters: `BrowserViewConfig`.

It ends with SIGINT or SIGTERM, with exit code 0.

    ros2 run grpo_ros browser_view --ros-args -p port:=8080
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import rclpy.clock
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Transform as TransformMessage
from rclpy.clock import ClockType
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from grpo_ros import typed
from grpo_ros.deployment.inputs.camera_images import rgb_from_raw
from grpo_ros.deployment.inputs.input_refusal import InputRefusal
from grpo_ros.nodes.browser.page import FIRST_PORT, close_page, open_page
from grpo_ros.nodes.browser.show import Show
from grpo_ros.nodes.shared import qos
from grpo_ros.nodes.shared.lifecycle import guarded
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.process import leave, spinning
from grpo_ros.robots.meshes import mesh_path

AUTO, IMAGE = "auto", "sensor_msgs/msg/Image"
SEARCH_S = 1.0


@dataclasses.dataclass(frozen=True)
class BrowserViewConfig:
    """Parameters of the browser view."""

    port: int = typed.setting(
        FIRST_PORT, "Of the page; 0: the next that is free", minimum=0, maximum=65535
    )
    host: str = typed.setting(
        "127.0.0.1", "Address that is listened at; 0.0.0.0 opens the page to the network"
    )
    rate_hz: float = typed.setting(
        10.0, "Updates of the page per second", unit="Hz", minimum=0.5, maximum=30.0
    )
    source: str = typed.setting("simulator_bridge", "Node that shows the robot and its scene")
    image_topic: str = typed.setting(
        AUTO, "Camera's topic; auto: the first that is published; empty: none"
    )


class BrowserView(Node):
    """See the module's docstring. Callbacks, which all run in one thread, keep the newest."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("browser_view", **kwargs)
        self.config = config = read_parameters(self, BrowserViewConfig())
        self.server = open_page(config.host, config.port, "grpo_ros")
        self.failure = ""
        self.show = show = Show(self.server, mesh_path)
        self._image: Any = None
        source = config.source
        for kind, topic, take, profile in (
            (String, "robot_description", lambda m: show.take_urdf(m.data), qos.LATCHED),
            (JointState, "joint_states", self._on_joints, qos.SENSOR),
            (TFMessage, "/tf", self._on_transforms, qos.SENSOR),
            (TFMessage, "/tf_static", self._on_transforms, qos.TF_STATIC),
            (MarkerArray, f"{source}/markers", show.take_bodies, qos.SENSOR),
            (MarkerArray, f"{source}/group_paths", show.take_paths, qos.LATCHED),
            (DiagnosticStatus, f"{source}/status", self._on_status, qos.LATCHED),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.SENSOR),
        ):
            self.create_subscription(kind, topic, guarded(self, topic, take), profile)
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / config.rate_hz, guarded(self, "page", self._update), clock=wall)
        self.create_timer(SEARCH_S, guarded(self, "camera", self._find_camera), clock=wall)
        self.get_logger().info(f"open {self.address} in a browser")

    @property
    def address(self) -> str:
        """Of the page, as this machine's browser takes it."""
        host = self.config.host
        name = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.server.get_port()}"

    def close(self) -> None:
        """Stop serving the page."""
        close_page(self.server)

    def on_failure(self, where: str, reason: str) -> None:
        """Go on: what was shown before stays."""

    # ---------------------------------------------------------------- what comes

    def _on_joints(self, message: JointState) -> None:
        if len(message.position) == len(message.name):
            self.show.take_joints(message.name, message.position)

    def _on_transforms(self, message: TFMessage) -> None:
        self.show.take_links(
            [
                (each.header.frame_id, each.child_frame_id, values_of(each.transform))
                for each in message.transforms
            ]
        )

    def _on_status(self, message: DiagnosticStatus) -> None:
        self.show.state.take_episode(message.message, pairs_of(message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            level = int.from_bytes(status.level, "little")
            self.show.state.take_status(
                status.name, level, status.message, pairs_of(status), time.monotonic()
            )

    def _on_image(self, message: Image) -> None:
        data = np.frombuffer(message.data, dtype=np.uint8)
        try:
            pixels = rgb_from_raw(
                message.encoding, message.height, message.width, message.step, data
            )
        except InputRefusal as problem:
            self.get_logger().warning(f"image: {problem}", once=True)
        else:
            self.show.take_picture(pixels)

    # ---------------------------------------------------------------- what is shown

    def _update(self) -> None:
        self.show.update(time.monotonic())

    def _find_camera(self) -> None:
        """Listen to the camera while somebody looks, and only then."""
        if not self.show.is_watched:
            if self._image is not None:
                self.destroy_subscription(self._image)
                self._image = None
            return
        topic = self.config.image_topic
        if topic == AUTO:
            known = self.get_topic_names_and_types()
            topic = next((name for name, kinds in known if IMAGE in kinds), "")
        if self._image is None and topic:
            take = guarded(self, topic, self._on_image)
            self._image = self.create_subscription(Image, topic, take, qos.SENSOR)


def values_of(transform: TransformMessage) -> list[float]:
    """Return x, y, z in m and x, y, z, w."""
    shift, turn = transform.translation, transform.rotation
    return [shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w]


def pairs_of(status: DiagnosticStatus) -> dict[str, str]:
    """Return a status' values by key."""
    return {pair.key: pair.value for pair in status.values}


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    with spinning(BrowserView, BrowserView.close, args) as process:
        return process.wait()


if __name__ == "__main__":
    leave(main())
