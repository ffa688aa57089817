"""Observation inputs: the subscriptions that a contract needs, and no other.

Subscribes, where the contract needs it:
    <joint_states_topic> (sensor_msgs/JointState): joints by name.
    <odometry_topic> (nav_msgs/Odometry): a base's joints x, y and yaw.
    <object_topic> (geometry_msgs/PoseStamped): each body; or <detections_topic>
        (vision_msgs/Detection3DArray); or /tf and /tf_static (tf2_msgs/TFMessage).
    <image_topic> (sensor_msgs/Image), or <image_topic>/compressed (sensor_msgs/CompressedImage).
    <scan_topic> (sensor_msgs/LaserScan).
    /tf, /tf_static: once a pose or a scan comes in another frame.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Literal

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CompressedImage, Image, JointState, LaserScan
from std_msgs.msg import Header

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.deployment.inputs.observation_buffer import ObservationBuffer
from grpo_ros.errors import ConfigurationError, ContractError, MissingExtraError
from grpo_ros.nodes.inputs.intake import Intake
from grpo_ros.nodes.inputs.object_inputs import ObjectInputs
from grpo_ros.nodes.inputs.sensor_inputs import SensorInputs
from grpo_ros.nodes.inputs.transform_tree import TransformTree
from grpo_ros.nodes.recording.noting import OnMessage, noted, type_name
from grpo_ros.nodes.shared import qos
from grpo_ros.robots.robot import Robot

try:
    from vision_msgs.msg import Detection3DArray
except ImportError:  # not part of every ROS 2
    Detection3DArray = None

NAME = "{name}"
BASE_COMMANDS = ("twist", "twist_stamped")


@dataclasses.dataclass(frozen=True)
class InputsConfig:
    """Where the policy server's observations come from."""

    joint_states_topic: str = typed.setting("", "Empty: as the robot description says")
    objects: Literal["pose", "detections", "tf"] = typed.setting(
        "pose", "Poses of bodies: a topic each, detections, or frames that bear their names"
    )
    object_topic: str = typed.setting("objects/{name}/pose", "Topic of a body's pose")
    detections_topic: str = typed.setting("detections", "vision_msgs/Detection3DArray topic")
    min_score: float = typed.setting(
        0.5, "Least score of a detection's best hypothesis", minimum=0.0, maximum=1.0
    )
    transform_poses: bool = typed.setting(
        True, "Turn poses in other frames into the base frame by tf; false: refuse them"
    )
    image_topic: str = typed.setting("{name}/image_raw", "Topic of a camera's image")
    compressed: bool = typed.setting(False, "Listen to <image_topic>/compressed: JPEG or PNG")
    odometry_topic: str = typed.setting("", "Empty: as the robot description says")
    scan_topic: str = typed.setting("", "Empty: as the robot description says")
    scan_range_m: float = typed.setting(
        0.0,
        "What a beam that met nothing read in training; 0: the contract's statistics say it",
        unit="m",
        minimum=0.0,
    )


class ObservationInputs:
    """Subscribes to what a contract needs and stores it in a buffer.

    Args:
        node: that subscribes; its `create_subscription` guards callbacks.
        contract: of the policy.
        robot: that is observed.
        buffer: of the same contract and robot.
        config: where things come from.
        on_input: called after each input that was stored.
        reliable: whether no message may be lost, as in lock step.
        on_jump_back: called when joint states begin anew at an earlier time, after everything was
            forgotten; None: nothing is forgotten by itself, and such joint states are refused.
        on_message: is shown every message, before it is judged.
        steady: the clock of arrivals, s.

    Raises:
        ConfigurationError: nothing says where an input comes from.
        ContractError: a base whose joints are not x, y and yaw.
        MissingExtraError: detections without vision_msgs.
    """

    def __init__(
        self,
        node: Any,
        contract: Contract,
        robot: Robot,
        buffer: ObservationBuffer,
        config: InputsConfig,
        on_input: Callable[[], None],
        reliable: bool,
        on_jump_back: Callable[[], None] | None = None,
        on_message: OnMessage | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._contract, self._robot = node, contract, robot
        self._buffer, self._config = buffer, config
        self._profile = qos.STATE if reliable else qos.SENSOR
        self._notify, self._on_message = on_jump_back, on_message
        self._made: list[Any] = []
        self._topics: list[tuple[str, str]] = []
        intake = Intake(buffer, on_input, steady)
        self._tree = TransformTree(node, self._on_transforms, on_message)
        self._objects = ObjectInputs(intake, self._tree, config.transform_poses, config.min_score)
        self._sensors = SensorInputs(
            intake,
            robot,
            self._tree,
            config.scan_range_m,
            None if on_jump_back is None else self._on_jump_back,
        )
        for kind, topic, callback in self._wanted():
            self._subscribe(kind, topic, callback)
        if self._follows_frames:
            self._tree.listen()

    def topics(self) -> tuple[tuple[str, str], ...]:
        """Return what it listens to now: full name of the topic, and type as pkg/msg/Type."""
        return (*self._topics, *self._tree.topics)

    def put_pose(self, body: str, message: PoseStamped) -> None:
        """Take the pose of a body as if it had come on its topic."""
        if self._on_message is not None:
            topic = self._node.resolve_topic_name(self._config.object_topic.replace(NAME, body))
            header = Header(stamp=message.header.stamp, frame_id=message.header.frame_id)
            copied = PoseStamped(header=header, pose=message.pose)
            self._on_message(topic, type_name(PoseStamped), copied)
        self._objects.on_pose(body, message)

    def forget(self) -> None:
        """Forget all inputs and transforms, e.g. after the clock jumped back."""
        self._buffer.clear()
        self._objects.clear()
        self._tree.clear()

    def destroy(self) -> None:
        """Stop listening; idempotent."""
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self._made, self._topics = [], []
        self._tree.destroy()

    # ---------------------------------------------------------------- what is needed

    @property
    def _follows_frames(self) -> bool:
        return self._config.objects == "tf" and bool(self._buffer.body_names)

    def _wanted(self) -> list[tuple[Any, str, Callable[[Any], None]]]:
        """Return type, topic and callback of each subscription."""
        return [*self._wanted_joints(), *self._wanted_objects(), *self._wanted_sensors()]

    def _wanted_joints(self) -> list[tuple[Any, str, Callable[[Any], None]]]:
        config, interfaces = self._config, self._robot.interfaces
        wanted: list[tuple[Any, str, Callable[[Any], None]]] = []
        joints = self._buffer.joint_names
        if interfaces.arm_command in BASE_COMMANDS:
            base = self._robot.arm_joints
            if len(base) != 3:
                raise ContractError(
                    f"base '{self._robot.name}' has joints {list(base)}",
                    expected="x, y and yaw, in this order: odometry gives no others",
                )
            joints = tuple(name for name in joints if name not in base)
            topic = self._named(config.odometry_topic or interfaces.odometry, "odometry_topic")
            wanted.append((Odometry, topic, self._sensors.on_odometry))
        if joints:
            given = config.joint_states_topic or interfaces.joint_states
            topic = self._named(given, "joint_states_topic")
            wanted.append((JointState, topic, self._sensors.on_joint_state))
        return wanted

    def _wanted_objects(self) -> list[tuple[Any, str, Callable[[Any], None]]]:
        config, objects, bodies = self._config, self._objects, self._buffer.body_names
        if not bodies or config.objects == "tf":
            return []
        if config.objects == "pose":
            return [
                (PoseStamped, topic, functools.partial(objects.on_pose, body))
                for body, topic in self._each(bodies, config.object_topic, "object_topic")
            ]
        if Detection3DArray is None:
            raise MissingExtraError(
                "objects:=detections needs the package vision_msgs",
                remedy="install ros-jazzy-vision-msgs, or use objects:=pose or objects:=tf",
            )
        topic = self._named(config.detections_topic, "detections_topic")
        return [(Detection3DArray, topic, objects.on_detections)]

    def _wanted_sensors(self) -> list[tuple[Any, str, Callable[[Any], None]]]:
        config, sensors = self._config, self._sensors
        suffix = "/compressed" if config.compressed and config.image_topic else ""
        kind: Any = CompressedImage if config.compressed else Image
        take = sensors.on_compressed if config.compressed else sensors.on_image
        cameras = self._each(self._buffer.camera_names, config.image_topic + suffix, "image_topic")
        scan_topic = config.scan_topic or self._robot.interfaces.scan
        lasers = self._each(self._buffer.sensor_names, scan_topic, "scan_topic")
        return [
            *((kind, topic, functools.partial(take, camera)) for camera, topic in cameras),
            *(
                (LaserScan, topic, functools.partial(sensors.on_scan, laser))
                for laser, topic in lasers
            ),
        ]

    def _each(self, names: tuple[str, ...], template: str, key: str) -> list[tuple[str, str]]:
        """Return name and topic of several inputs of one kind."""
        if len(names) > 1 and NAME not in template:
            raise ConfigurationError(
                f"'{key}' = '{template}' is one topic for {', '.join(names)}",
                expected=f"a topic with {NAME} in it",
            )
        return [(name, self._named(template, key).replace(NAME, name)) for name in names]

    def _named(self, topic: str, key: str) -> str:
        if not topic:
            raise ConfigurationError(
                f"nothing says on which topic the inputs of task '{self._contract.task}' come",
                expected=f"parameter '{key}', or the interfaces of robot '{self._robot.name}'",
            )
        return topic

    # ---------------------------------------------------------------- callbacks

    def _subscribe(self, kind: Any, topic: str, callback: Callable[[Any], None]) -> None:
        name = self._node.resolve_topic_name(topic), type_name(kind)
        call = noted(self._on_message, *name, callback)
        self._made.append(self._node.create_subscription(kind, topic, call, self._profile))
        self._topics.append(name)

    def _on_transforms(self) -> None:
        self._objects.retry()
        if self._follows_frames:
            self._objects.follow_frames()

    def _on_jump_back(self) -> None:
        self.forget()
        if self._notify is not None:
            self._notify()
