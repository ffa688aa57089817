"""What the policy server listens to, over real ROS: each kind of message, and each refusal."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy  # noqa: E402
from deploy_helpers import ENVIRONMENT  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from PIL import Image as Picture  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, JointState, LaserScan  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from grpo_ros.contract import Contract, ObservationField, Source, Statistics  # noqa: E402
from grpo_ros.deployment.inputs.observation_buffer import (  # noqa: E402
    NotReady,
    ObservationBuffer,
    Reading,
)
from grpo_ros.errors import ConfigurationError, MissingExtraError  # noqa: E402
from grpo_ros.nodes.inputs import observation_inputs  # noqa: E402
from grpo_ros.nodes.inputs.observation_inputs import InputsConfig, ObservationInputs  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.shared.lifecycle import GuardedLifecycleNode  # noqa: E402
from grpo_ros.robots.robot import Robot, load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
DEADLINE_S = 20.0
MS = 1_000_000
T = 5_000 * MS
TAU = 2.0 * math.pi
ARM, BASE = load_robot("franka_fr3"), load_robot("diff_base")
UPRIGHT = (0.0, 0.0, 0.0, 1.0)
QUARTER = (0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5))
"""A quarter turn to the left."""


def contract_of(robot: Robot, *fields: ObservationField) -> Contract:
    return Contract(
        task="toy",
        instruction="",
        embodiment=robot.name,
        robot_sha256=robot.sha256,
        observation=fields,
        limits=robot.limits,
    )


JOINTS = ObservationField("joints", (7,), Source("joint_position", ARM.arm_joints))
CUBE = ObservationField("cube", (3,), Source("position", ("cube",), "tip"))
WRIST = ObservationField(
    "wrist_image", (4, 6, 3), Source("camera", ("wrist",), encoding="rgb8"), "uint8"
)
SCAN = ObservationField(
    "scan",
    (8,),
    Source("scan", ("base_scan",)),
    statistics=Statistics((1.0,) * 8, (1.0,) * 8, (0.1,) * 8, (2.0,) * 8),
)


class Lab:
    """A node under test and a node that stands for the drivers, spun by the test itself."""

    def __init__(self, context: Context) -> None:
        self.node = GuardedLifecycleNode("server", context=context)
        self.drivers = Node("drivers", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self._executor.add_node(self.drivers)
        self._publishers: dict[str, Any] = {}
        self.inputs: ObservationInputs | None = None
        self.num_inputs = 0

    def listen(
        self,
        robot: Robot,
        *fields: ObservationField,
        reliable: bool = True,
        on_jump_back: Callable[[], None] | None = None,
        **settings: Any,
    ) -> ObservationBuffer:
        """Subscribe to what the fields need; return the buffer."""
        contract = contract_of(robot, *fields)
        self.buffer = ObservationBuffer(contract, robot)
        self.inputs = ObservationInputs(
            self.node,
            contract,
            robot,
            self.buffer,
            InputsConfig(**settings),
            self._count,
            reliable,
            on_jump_back,
        )
        return self.buffer

    def _count(self) -> None:
        self.num_inputs += 1

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Spin until a condition holds, within the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self._executor.spin_once(timeout_sec=0.05)

    def send(self, topic: str, message: Any, profile: Any = qos.STATE) -> None:
        """Publish once somebody listens."""
        publisher = self._publishers.get(topic)
        if publisher is None:
            publisher = self.drivers.create_publisher(type(message), topic, profile)
            self._publishers[topic] = publisher
        self.until(lambda: publisher.get_subscription_count() > 0, f"a listener of {topic}")
        publisher.publish(message)

    def stored(self, topic: str, message: Any, profile: Any = qos.STATE) -> None:
        """Publish, and wait until one input more was stored."""
        before = self.num_inputs
        self.send(topic, message, profile)
        self.until(
            lambda: self.num_inputs > before,
            f"{topic} to be stored; {dict(self.buffer.rejected)}: {self.buffer.last_rejection}",
        )

    def refused(self, topic: str, message: Any, kind: str, profile: Any = qos.STATE) -> str:
        """Publish, wait until it is refused as said and for nothing else; return why."""
        before = self.buffer.rejected[kind], self.num_inputs
        self.send(topic, message, profile)
        self.until(
            lambda: self.buffer.rejected[kind] > before[0],
            f"a refusal '{kind}'; {dict(self.buffer.rejected)}: {self.buffer.last_rejection}",
        )
        assert self.num_inputs == before[1] and not self.node.failure
        return self.buffer.last_rejection

    def close(self) -> None:
        if self.inputs is not None:
            self.inputs.destroy()
        self._executor.shutdown()
        self.node.destroy_node()
        self.drivers.destroy_node()


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    context = Context()
    domain = int(ENVIRONMENT["ROS_DOMAIN_ID"])
    rclpy.init(context=context, domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    made = Lab(context)
    yield made
    assert not made.node.failure
    made.close()
    rclpy.try_shutdown(context=context)


def joint_state(stamp_ns: int = T, position: float = 0.1) -> JointState:
    names = (*reversed(ARM.joint_names), "stranger")
    values = np.full(len(names), position)
    return messages.joint_state(stamp_ns, names, values, np.zeros(len(names)))


def pose(
    frame: str, xyz: tuple[float, ...] = (0.5, 0.0, 0.1), turn: Any = UPRIGHT, stamp_ns: int = T
) -> PoseStamped:
    return messages.pose(stamp_ns, frame, (*xyz, *turn))


def transforms(*links: tuple[str, str, tuple[float, ...], Any], stamp_ns: int = T) -> TFMessage:
    return TFMessage(
        transforms=[
            messages.transform(stamp_ns, parent, child, (*xyz, *turn))
            for parent, child, xyz, turn in links
        ]
    )


def place_of(buffer: ObservationBuffer, body: str = "cube") -> list[float]:
    """Return where a body is, in the base frame."""
    reading = buffer.read(buffer.aligned_ns() or T, max_age_s=1e6)
    assert isinstance(reading, Reading), reading
    return list(reading.scene.poses[body][0].tolist())


# -------------------------------------------------------------------- topics


def test_it_listens_to_what_the_contract_needs_and_to_nothing_else(lab: Lab) -> None:
    lab.listen(ARM, JOINTS, CUBE, WRIST)
    assert lab.inputs is not None
    assert set(lab.inputs.topics()) == {
        ("/joint_states", "sensor_msgs/msg/JointState"),
        ("/objects/cube/pose", "geometry_msgs/msg/PoseStamped"),
        ("/wrist/image_raw", "sensor_msgs/msg/Image"),
    }
    heard = {
        topic
        for topic, _ in lab.node.get_subscriber_names_and_types_by_node("server", "/")
        if not topic.startswith("/parameter_events")
    }
    assert heard == {topic for topic, _ in lab.inputs.topics()}
    lab.inputs.destroy()
    assert lab.inputs.topics() == ()


def test_a_base_is_heard_by_odometry_and_scan(lab: Lab) -> None:
    lab.listen(BASE, SCAN, odometry_topic="wheels/odom", scan_topic="laser/scan")
    assert lab.inputs is not None
    assert set(lab.inputs.topics()) == {
        ("/wheels/odom", "nav_msgs/msg/Odometry"),
        ("/laser/scan", "sensor_msgs/msg/LaserScan"),
    }


def test_sources_are_chosen_by_the_settings(lab: Lab) -> None:
    lab.listen(
        ARM, JOINTS, CUBE, WRIST, objects="tf", compressed=True, joint_states_topic="arm/state"
    )
    assert lab.inputs is not None
    assert set(lab.inputs.topics()) == {
        ("/arm/state", "sensor_msgs/msg/JointState"),
        ("/wrist/image_raw/compressed", "sensor_msgs/msg/CompressedImage"),
        ("/tf", "tf2_msgs/msg/TFMessage"),
        ("/tf_static", "tf2_msgs/msg/TFMessage"),
    }


def test_one_topic_for_several_bodies_is_refused(lab: Lab) -> None:
    goal = ObservationField("goal", (3,), Source("position", ("goal",)))
    with pytest.raises(ConfigurationError, match=r"'object_topic'.*cube, goal.*\{name\}"):
        lab.listen(ARM, CUBE, goal, object_topic="pose")


def test_joints_without_a_topic_are_refused(lab: Lab) -> None:
    silent = dataclasses.replace(ARM.interfaces, joint_states="")
    description = dataclasses.replace(ARM.description, interfaces=silent)
    with pytest.raises(ConfigurationError, match="joint_states_topic"):
        lab.listen(dataclasses.replace(ARM, description=description), JOINTS)


def test_detections_without_vision_msgs_are_refused_with_a_remedy(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observation_inputs, "Detection3DArray", None)
    with pytest.raises(MissingExtraError, match="ros-jazzy-vision-msgs"):
        lab.listen(ARM, JOINTS, CUBE, objects="detections")


# -------------------------------------------------------------------- joints and poses


@pytest.mark.parametrize("reliable", [True, False])
def test_joint_states_and_poses_make_a_reading(lab: Lab, reliable: bool) -> None:
    buffer = lab.listen(ARM, JOINTS, CUBE, reliable=reliable)
    lab.stored("joint_states", joint_state())
    assert buffer.read(T) == NotReady("missing", "no pose of 'cube'")
    lab.stored("objects/cube/pose", pose("base"))
    reading = buffer.read(T)
    assert isinstance(reading, Reading) and buffer.aligned_ns() == T
    assert reading.scene.joints(ARM.joint_names).tolist() == [[0.1] * 8]
    stale = buffer.read(T + 101 * MS)
    assert isinstance(stale, NotReady) and "101 ms old, at most 100 ms" in stale.reason
    lab.stored("joint_states", joint_state(T + 60 * MS))
    skewed = buffer.read(T + 60 * MS)
    assert isinstance(skewed, NotReady) and skewed.kind == "skewed"
    assert "pose of 'cube'" in skewed.reason and "60 ms apart, at most 50 ms" in skewed.reason


def test_arrivals_are_kept_so_that_silence_shows(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS)
    before = time.monotonic()
    lab.stored("joint_states", joint_state())
    assert isinstance(buffer.read(T, steady_s=before), Reading)
    silent = buffer.read(T, steady_s=time.monotonic() + 0.2)
    assert isinstance(silent, NotReady) and "brought nothing new" in silent.reason


def test_messages_without_a_stamp_are_refused_and_the_reason_says_so(lab: Lab) -> None:
    lab.listen(ARM, JOINTS, CUBE)
    assert "its driver does not stamp it" in lab.refused(
        "joint_states", joint_state(0), "unstamped"
    )
    assert "pose of 'cube'" in lab.refused(
        "objects/cube/pose", pose("base", stamp_ns=0), "unstamped"
    )


def test_malformed_joint_states_are_refused(lab: Lab) -> None:
    lab.listen(ARM, JOINTS)
    lab.refused("joint_states", joint_state(position=math.nan), "not_finite")
    short = joint_state()
    short.position = array("d", [0.0])
    lab.refused("joint_states", short, "width")


def test_time_that_begins_anew_is_reported_and_all_is_forgotten(lab: Lab) -> None:
    jumps: list[bool] = []
    buffer = lab.listen(ARM, JOINTS, CUBE, on_jump_back=lambda: jumps.append(True))
    lab.stored("joint_states", joint_state())
    lab.stored("objects/cube/pose", pose("base"))
    lab.refused("joint_states", joint_state(T - 500 * MS), "out_of_order")
    lab.stored("joint_states", joint_state(1 * MS))
    assert jumps == [True]
    assert buffer.read(1 * MS) == NotReady("missing", "no pose of 'cube'")


def test_an_old_stamp_of_a_joint_that_nothing_needs_is_passed_over(lab: Lab) -> None:
    """Regression: a second driver's message forgot all inputs and ended the run."""
    jumps: list[bool] = []
    buffer = lab.listen(ARM, JOINTS, on_jump_back=lambda: jumps.append(True))
    lab.stored("joint_states", joint_state())
    lab.send("joint_states", messages.joint_state(1 * MS, ("a_wheel",), [0.1], [0.0]))
    lab.stored("joint_states", joint_state(T + 10 * MS))
    assert jumps == [] and not buffer.rejected


def test_in_real_time_old_stamps_are_refused_and_one_far_ahead_blocks_nothing(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS)
    lab.stored("joint_states", joint_state())
    lab.refused("joint_states", joint_state(T - 1_500 * MS), "out_of_order")
    lab.stored("joint_states", joint_state(T + 5_000 * MS))
    ahead = buffer.read(T)
    assert isinstance(ahead, NotReady) and ahead.kind == "future"
    lab.stored("joint_states", joint_state(T + 10 * MS))
    assert isinstance(buffer.read(T + 10 * MS), Reading)


# -------------------------------------------------------------------- transforms


def test_a_pose_in_another_frame_is_turned_into_the_base_frame(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS, CUBE)
    lab.stored("joint_states", joint_state())
    reason = lab.refused("objects/cube/pose", pose("eye"), "frame")
    assert "no transform from 'eye' to 'base'" in reason
    assert lab.inputs is not None and ("/tf", "tf2_msgs/msg/TFMessage") in lab.inputs.topics()
    mount = transforms(("base", "mast", (1.0, 0.0, 0.0), QUARTER))
    lab.send("/tf_static", mount, qos.LATCHED)
    lab.send("/tf", transforms(("mast", "eye", (0.0, 0.0, 0.5), UPRIGHT)), qos.TF)
    known = lab.inputs._tree.newest_ns
    lab.until(lambda: known("base", "eye") == T, "the transforms")
    lab.stored("objects/cube/pose", pose("eye", (0.2, 0.0, 0.1)))
    assert place_of(buffer) == pytest.approx([1.0, 0.2, 0.6, *QUARTER])


def test_a_pose_waits_for_the_transform_of_its_time(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS, CUBE)
    lab.stored("joint_states", joint_state(T + 50 * MS))
    lab.refused("objects/cube/pose", pose("eye"), "frame")
    lab.send("/tf", transforms(("base", "eye", (1.0, 0.0, 0.0), UPRIGHT)), qos.TF)
    assert lab.inputs is not None
    known = lab.inputs._tree.newest_ns
    lab.until(lambda: known("base", "eye") == T, "the transform")
    lab.send("objects/cube/pose", pose("eye", stamp_ns=T + 50 * MS))
    lab.until(lambda: lab.inputs._objects._waiting, "the pose to wait")  # type: ignore[union-attr]
    later = transforms(("base", "eye", (2.0, 0.0, 0.0), UPRIGHT), stamp_ns=T + 100 * MS)
    lab.stored("/tf", later, qos.TF)
    assert place_of(buffer)[:3] == pytest.approx([2.0, 0.0, 0.1])  # 1.5, in the middle, + 0.5


def test_other_frames_are_refused_where_they_may_not_be_transformed(lab: Lab) -> None:
    lab.listen(ARM, CUBE, transform_poses=False)
    reason = lab.refused("objects/cube/pose", pose("eye"), "frame")
    assert "'eye'" in reason and "'base'" in reason


def test_frames_that_bear_the_bodies_names_give_their_poses(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS, CUBE, objects="tf")
    lab.stored("joint_states", joint_state())
    links = ("base", "eye", (0.0, 0.0, 1.0), QUARTER), ("eye", "cube", (0.3, 0.0, 0.0), UPRIGHT)
    lab.stored("/tf", transforms(*links), qos.TF)
    assert place_of(buffer) == pytest.approx([0.0, 0.3, 1.0, *QUARTER])
    assert buffer.aligned_ns() == T
    lab.stored("/tf", transforms(*links, stamp_ns=T + 20 * MS), qos.TF)
    assert buffer.ages(T + 20 * MS)["pose of 'cube'"] == 0.0


def test_a_frame_that_never_moves_is_refused_by_name(lab: Lab) -> None:
    lab.listen(ARM, CUBE, objects="tf")
    still = transforms(("base", "cube", (0.3, 0.0, 0.0), UPRIGHT))
    assert "frame 'cube'" in lab.refused("/tf_static", still, "unstamped", qos.LATCHED)


def test_broken_transforms_do_no_harm(lab: Lab) -> None:
    lab.listen(ARM, CUBE, objects="tf")
    nan = transforms(("base", "cube", (math.nan, 0.0, 0.0), UPRIGHT))
    lab.send("/tf", nan, qos.TF)
    lab.send("/tf", transforms(("", "", (0.0, 0.0, 0.0), UPRIGHT)), qos.TF)
    lab.send("/tf", transforms(("base", "cube", (0.0, 0.0, 0.0), (0.0,) * 4)), qos.TF)
    lab.stored("/tf", transforms(("base", "cube", (0.3, 0.0, 0.0), UPRIGHT)), qos.TF)
    assert lab.num_inputs == 1


@pytest.mark.parametrize("frame", ["", "/base", "no such frame"])
def test_a_pose_in_a_frame_that_is_no_frame_is_refused(lab: Lab, frame: str) -> None:
    lab.listen(ARM, CUBE)
    assert "pose of 'cube'" in lab.refused("objects/cube/pose", pose(frame), "frame")


# -------------------------------------------------------------------- detections


def detection(name: str, score: float, x: float = 0.4, identity: str = "") -> Any:
    vision = pytest.importorskip("vision_msgs.msg")
    result = vision.ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = name, score
    result.pose.pose = pose("base", (x, 0.0, 0.1)).pose
    return vision.Detection3D(results=[result], id=identity)


def detections(*found: Any, frame: str = "base", stamp_ns: int = T) -> Any:
    vision = pytest.importorskip("vision_msgs.msg")
    message = vision.Detection3DArray(detections=list(found))
    message.header = pose(frame, stamp_ns=stamp_ns).header
    return message


def test_detections_give_poses_by_class_or_identity(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS, CUBE, objects="detections")
    lab.stored("joint_states", joint_state())
    weak = detection("mug", 0.2).results
    both = detection("cube", 0.9, x=0.7)
    both.results = [*weak, *both.results]
    lab.stored("detections", detections(both, detection("plate", 0.9)))
    assert place_of(buffer)[0] == pytest.approx(0.7)
    lab.stored("detections", detections(detection("box", 0.9, x=0.8, identity="cube")))
    assert place_of(buffer)[0] == pytest.approx(0.8)


def test_a_body_seen_twice_is_refused_and_the_others_are_taken(lab: Lab) -> None:
    goal = ObservationField("goal", (3,), Source("position", ("goal",)))
    buffer = lab.listen(ARM, JOINTS, CUBE, goal, objects="detections")
    lab.stored("joint_states", joint_state())
    twice = detection("cube", 0.9, 0.1), detection("cube", 0.9, 0.2), detection("goal", 0.9)
    lab.stored("detections", detections(*twice))
    assert buffer.rejected == {"several": 1} and "'cube'" in buffer.last_rejection
    assert buffer.read(T) == NotReady("missing", "no pose of 'cube'")


@pytest.mark.parametrize("score", [0.49, math.nan, -math.inf])
def test_a_doubtful_detection_is_refused(lab: Lab, score: float) -> None:
    lab.listen(ARM, CUBE, objects="detections")
    assert "at least 0.5" in lab.refused(
        "detections", detections(detection("cube", score)), "score"
    )


# -------------------------------------------------------------------- images


def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def image(pixels: np.ndarray, encoding: str = "rgb8", stamp_ns: int = T) -> Image:
    height, width, channels = pixels.shape
    message = Image(height=height, width=width, encoding=encoding, step=width * channels)
    message.header.stamp = messages.to_time(stamp_ns)
    message.data = array("B", pixels.tobytes())
    return message


def image_of(buffer: ObservationBuffer) -> np.ndarray:
    reading = buffer.read(T)
    assert isinstance(reading, Reading), reading
    return reading.images["wrist_image"][0]


def test_images_reach_the_policy_as_red_green_and_blue(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS, WRIST)
    lab.stored("joint_states", joint_state())
    assert buffer.read(T) == NotReady("missing", "no image of camera 'wrist'")
    lab.stored("wrist/image_raw", image(pixels()))
    assert np.array_equal(image_of(buffer), pixels())
    lab.stored("wrist/image_raw", image(np.ascontiguousarray(pixels()[..., ::-1]), "bgr8"))
    assert np.array_equal(image_of(buffer), pixels())
    stale = buffer.read(T + 101 * MS)
    assert isinstance(stale, NotReady) and "ms old" in stale.reason


def test_compressed_images_are_unpacked(lab: Lab) -> None:
    buffer = lab.listen(ARM, JOINTS, WRIST, compressed=True)
    lab.stored("joint_states", joint_state())
    file = io.BytesIO()
    Picture.fromarray(pixels()).save(file, "PNG")
    message = CompressedImage(format="rgb8; png compressed bgr8")
    message.header.stamp = messages.to_time(T)
    message.data = array("B", file.getvalue())
    lab.stored("wrist/image_raw/compressed", message)
    assert np.array_equal(image_of(buffer), pixels())
    message.data = array("B", file.getvalue()[:40])
    reason = lab.refused("wrist/image_raw/compressed", message, "encoding")
    assert "camera 'wrist'" in reason


def test_images_of_another_encoding_or_too_small_are_refused_by_name(lab: Lab) -> None:
    lab.listen(ARM, WRIST)
    reason = lab.refused("wrist/image_raw", image(pixels(), "yuv422"), "encoding")
    assert "camera 'wrist'" in reason and "'yuv422'" in reason
    reason = lab.refused("wrist/image_raw", image(pixels()[:3].copy()), "size")
    assert "6x3 pixels" in reason and "6x4" in reason


# -------------------------------------------------------------------- bases


def odometry(
    x: float,
    y: float,
    yaw: float,
    stamp_ns: int = T,
    frames: tuple[str, str] = ("odom", "base_link"),
) -> Odometry:
    message = Odometry(child_frame_id=frames[1])
    turn = (0.0, 0.0, math.sin(yaw / 2.0), math.cos(yaw / 2.0))
    stamped = pose(frames[0], (x, y, 0.0), turn, stamp_ns)
    message.header, message.pose.pose = stamped.header, stamped.pose
    message.twist.twist.linear.x, message.twist.twist.linear.y = 0.5, 0.1
    message.twist.twist.angular.z = -0.3
    return message


def test_odometry_gives_a_bases_joints_with_velocities_in_the_odometry_frame(lab: Lab) -> None:
    buffer = lab.listen(BASE)
    lab.stored("odom", odometry(1.0, 2.0, math.pi / 2))
    reading = buffer.read(T)
    assert isinstance(reading, Reading)
    assert reading.scene.joints(BASE.arm_joints)[0].tolist() == pytest.approx([1, 2, math.pi / 2])
    assert reading.scene.joint_velocity[0].tolist() == pytest.approx([-0.1, 0.5, -0.3])


def test_the_yaw_joint_turns_on_where_the_angle_begins_anew(lab: Lab) -> None:
    buffer = lab.listen(BASE)
    turned = [3.0, -3.0, -1.0, 1.0, 3.0, -3.0]
    expected = [3.0, TAU - 3.0, TAU - 1.0, TAU + 1.0, TAU + 3.0, 2 * TAU - 3.0]
    for i, (yaw, joint) in enumerate(zip(turned, expected, strict=True)):
        lab.stored("odom", odometry(0.0, 0.0, yaw, T + i * MS))
        assert buffer.position(BASE.arm_joints)[2] == pytest.approx(joint)


def test_odometry_of_other_frames_or_without_an_orientation_is_refused(lab: Lab) -> None:
    lab.listen(BASE)
    other = odometry(0.0, 0.0, 0.0, frames=("map", "base_link"))
    assert "'base_link' in 'map'" in lab.refused("odom", other, "frame")
    other = odometry(0.0, 0.0, 0.0, frames=("odom", "base_footprint"))
    assert "'base_footprint'" in lab.refused("odom", other, "frame")
    blank = odometry(0.0, 0.0, 0.0)
    blank.pose.pose.orientation.w = 0.0
    lab.refused("odom", blank, "quaternion")
    lab.refused("odom", odometry(math.nan, 0.0, 0.0), "not_finite")


def scan(ranges: list[float], frame: str = "base_link", angle_min: float = 0.0) -> LaserScan:
    message = LaserScan(angle_min=angle_min, angle_increment=TAU / len(ranges))
    message.header = pose(frame).header
    message.range_min, message.range_max = 0.05, 6.0
    message.ranges = array("f", ranges)
    return message


def ranges_of(buffer: ObservationBuffer) -> list[float]:
    reading = buffer.read(T)
    assert isinstance(reading, Reading), reading
    return list(reading.scene.reading("base_scan")[0].tolist())


EIGHTHS = [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, math.inf]


def test_a_scan_reaches_the_policy_as_trained_on(lab: Lab) -> None:
    buffer = lab.listen(BASE, SCAN)
    lab.stored("odom", odometry(0.0, 0.0, 0.0))
    lab.stored("scan", scan(EIGHTHS))
    assert ranges_of(buffer) == [*EIGHTHS[:7], 2.0]
    behind_first = [*EIGHTHS[4:], *EIGHTHS[:4]]
    lab.stored("scan", scan(behind_first, angle_min=-math.pi))
    assert ranges_of(buffer) == [*EIGHTHS[:7], 2.0]
    fine = [value for value in EIGHTHS for _ in range(45)]
    lab.stored("scan", scan(fine))
    assert ranges_of(buffer) == [*EIGHTHS[:7], 2.0]


def test_a_laser_that_is_mounted_turned_is_turned_back(lab: Lab) -> None:
    buffer = lab.listen(BASE, SCAN)
    lab.stored("odom", odometry(0.0, 0.0, 0.0))
    assert "no transform from 'laser'" in lab.refused("scan", scan(EIGHTHS, "laser"), "frame")
    mount = transforms(("base_link", "laser", (0.0, 0.0, 0.2), QUARTER))
    lab.send("/tf_static", mount, qos.LATCHED)
    assert lab.inputs is not None
    known = lab.inputs._tree.newest_ns
    lab.until(lambda: known("base_link", "laser") is not None, "the mount")
    lab.stored("scan", scan(EIGHTHS, "laser"))
    assert ranges_of(buffer) == [1.75, 2.0, *EIGHTHS[:6]]


@pytest.mark.parametrize(
    ("xyz", "turn"), [((0.2, 0.0, 0.2), UPRIGHT), ((0.0, 0.0, 0.2), (1.0, 0.0, 0.0, 0.0))]
)
def test_a_laser_off_the_axis_or_upside_down_is_refused(
    lab: Lab, xyz: tuple[float, ...], turn: tuple[float, ...]
) -> None:
    lab.listen(BASE, SCAN)
    lab.refused("scan", scan(EIGHTHS, "laser"), "frame")
    lab.send("/tf_static", transforms(("base_link", "laser", xyz, turn)), qos.LATCHED)
    assert lab.inputs is not None
    known = lab.inputs._tree.newest_ns
    lab.until(lambda: known("base_link", "laser") is not None, "the mount")
    assert "upright" in lab.refused("scan", scan(EIGHTHS, "laser"), "frame")


def test_scans_that_the_policy_was_not_trained_with_are_refused_by_name(lab: Lab) -> None:
    lab.listen(BASE, SCAN)
    assert "scan 'base_scan'" in lab.refused("scan", scan([math.nan] * 8), "not_finite")
    assert "beam 0 reads 0.0 m" in lab.refused("scan", scan([0.0] * 8), "range")
    lab.refused("scan", scan([1.0] * 4), "layout")
    near = scan(EIGHTHS)
    near.range_max = 1.5
    assert "sees 1.50 m far" in lab.refused("scan", near, "range")


def test_the_range_in_training_may_be_given_where_the_contract_does_not_state_it(lab: Lab) -> None:
    bare = dataclasses.replace(SCAN, statistics=None)
    buffer = lab.listen(BASE, bare, scan_range_m=1.5)
    lab.stored("odom", odometry(0.0, 0.0, 0.0))
    lab.stored("scan", scan(EIGHTHS))
    assert ranges_of(buffer) == [*EIGHTHS[:6], 1.5, 1.5]
