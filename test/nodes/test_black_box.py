"""The black box: cheap while nothing happens, whole bags when something does, never a burden."""

from __future__ import annotations

import errno
import resource
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")

import yaml  # noqa: E402
from geometry_msgs.msg import TransformStamped  # noqa: E402
from mcap.reader import make_reader  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from rosbags.rosbag2 import Reader  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes.recording import (
    bags,  # noqa: E402
    black_box,  # noqa: E402
)
from grpo_ros.nodes.recording.bags import Bag, BagError  # noqa: E402
from grpo_ros.nodes.recording.black_box import BlackBox  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
JOINTS, IMAGES, COMMANDS = "/joint_states", "/wrist/image_raw", "/arm/joint_trajectory"
JOINT_TYPE, IMAGE_TYPE = "sensor_msgs/msg/JointState", "sensor_msgs/msg/Image"
TRAJECTORY_TYPE = "trajectory_msgs/msg/JointTrajectory"
DEADLINE_S = 20.0


class Log:
    """What a node logged."""

    def __init__(self) -> None:
        self.infos: list[str] = []
        self.errors: list[str] = []

    def info(self, text: str) -> None:
        self.infos.append(text)

    def error(self, text: str) -> None:
        self.errors.append(text)


class FakeNode:
    """A name, a log, and publishers with the QoS of states."""

    def __init__(self) -> None:
        self.log = Log()

    def get_name(self) -> str:
        return "policy_server"

    def get_namespace(self) -> str:
        return "/cell"

    def get_logger(self) -> Log:
        return self.log

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        return [SimpleNamespace(qos_profile=qos.LATCHED if topic == "/tf_static" else qos.STATE)]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(black_box, "AFTER_S", 0.05)


@pytest.fixture
def make_box(tmp_path: Path) -> Iterator[Callable[..., BlackBox]]:
    made: list[BlackBox] = []

    def make(seconds: float = 30.0, **about: str) -> BlackBox:
        made.append(BlackBox(FakeNode(), seconds, tmp_path / "bags", about))
        return made[-1]

    yield make
    for box in made:
        box.close()


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def joints(value: float) -> JointState:
    return messages.joint_state(1_000_000_000, ("a", "b"), [value, 2.0], [0.5, 0.25])


def image(size: int) -> Image:
    return Image(height=1, width=size, encoding="mono8", step=size, data=array("B", bytes(size)))


def dumped(box: BlackBox, kind: str = "velocity") -> Path:
    """Return the one bag that a request leads to."""
    before = box.num_written
    assert box.dump(kind, "for a test")
    until(lambda: box.num_written > before, f"a bag; {box.node.log.errors}")
    return max(box.folder.iterdir())


def fill(box: BlackBox, number: int) -> list[tuple[str, Any]]:
    """Note messages of three types; return them in order."""
    noted: list[tuple[str, Any]] = []
    for row in range(number):
        sent = JointTrajectory(joint_names=["a", "b"])
        for topic, kind, message in (
            (JOINTS, JOINT_TYPE, joints(0.1 * row)),
            (IMAGES, IMAGE_TYPE, image(1000 + row)),
            (COMMANDS, TRAJECTORY_TYPE, sent),
        ):
            box.note(topic, kind, message)
            noted.append((topic, message))
    return noted


def test_two_independent_readers_find_every_message_in_order(
    make_box: Callable[..., BlackBox],
) -> None:
    box = make_box(policy_sha256="12ab")
    noted = fill(box, 200)
    path = dumped(box)
    kinds = {JOINTS: JointState, IMAGES: Image, COMMANDS: JointTrajectory}

    with (path / f"{path.name}_0.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        found = [
            (channel.topic, deserialize_message(message.data, kinds[channel.topic]))
            for _, channel, message in reader.iter_messages()
        ]
    assert found == noted

    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(path) as rosbag:
        assert rosbag.message_count == len(noted)
        positions = []
        for connection in rosbag.connections:
            assert connection.digest == store.hash_rihs01(connection.msgtype)
            (offered,) = connection.ext.offered_qos_profiles
            assert (offered.reliability.name, offered.depth) == ("RELIABLE", 10)
        for connection, _, data in rosbag.messages():
            if connection.topic == JOINTS:
                positions.append(store.deserialize_cdr(data, connection.msgtype).position[0])
    assert positions == [0.1 * row for row in range(200)]


def test_a_bag_says_where_it_comes_from_and_is_a_folder_as_rosbag2_writes_it(
    make_box: Callable[..., BlackBox],
) -> None:
    box = make_box(policy_sha256="12ab", contract_sha256="34cd")
    fill(box, 3)
    box.tick(7_000_000_001)
    box.event("start", not_before_ns=5, run=2)
    path = dumped(box, "robot_mode")
    info = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert (info["version"], info["storage_identifier"]) == (9, "mcap")
    assert info["relative_file_paths"] == [f"{path.name}_0.mcap"]
    assert info["message_count"] == 11
    about = info["custom_data"]
    assert about["policy_sha256"] == "12ab" and about["contract_sha256"] == "34cd"
    assert (about["kind"], about["reason"]) == ("robot_mode", "for a test")
    with Bag(path) as bag:
        assert bag.topics["/cell/policy_server/ticks"] == "builtin_interfaces/msg/Time"
        tick, event = bag.messages(["/cell/policy_server/ticks", "/cell/policy_server/events"])
    assert messages.to_ns(tick.message) == 7_000_000_001
    assert event.message.message == "start"
    assert [(pair.key, pair.value) for pair in event.message.values] == [
        ("not_before_ns", "5"),
        ("run", "2"),
    ]


def test_noting_a_message_takes_less_than_5_us(make_box: Callable[..., BlackBox]) -> None:
    box, message, picture = make_box(1.0), joints(0.0), image(900_000)
    best = []
    for topic, kind, noted in ((JOINTS, JOINT_TYPE, message), (IMAGES, IMAGE_TYPE, picture)):
        rounds = []
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(500):
                box.note(topic, kind, noted)
            rounds.append((time.perf_counter() - began) / 500)
        best.append(min(rounds))
    assert max(best) < 5e-6, best


def test_the_window_moves_and_what_held_before_it_comes_first(
    make_box: Callable[..., BlackBox],
) -> None:
    box = make_box(0.5)
    for frame in ("camera", "laser"):
        static = TFMessage(transforms=[TransformStamped(child_frame_id=frame)])
        box.note("/tf_static", "tf2_msgs/msg/TFMessage", static)
    box.event("start", not_before_ns=0, run=0)
    box.note("/enable", "std_msgs/msg/Bool", Bool(data=True))
    for row in range(5):
        box.note(JOINTS, JOINT_TYPE, joints(row))
    time.sleep(0.6)
    for row in range(5, 8):
        box.note(JOINTS, JOINT_TYPE, joints(row))
    with Bag(dumped(box)) as bag:
        found = list(bag.messages(bag.topics))
    topics = [item.topic for item in found]
    assert topics == ["/tf_static", "/tf_static", "/enable", *[JOINTS] * 4]
    assert [item.message.position[0] for item in found[3:]] == [4.0, 5.0, 6.0, 7.0]
    assert found[-1].log_ns - found[0].log_ns < 500_000_000


def test_images_are_bounded_by_bytes_and_nothing_else_gives_way_to_them(
    make_box: Callable[..., BlackBox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(black_box, "MAX_BULKY_BYTES", 10_000)
    box = make_box()
    for row in range(50):
        box.note(JOINTS, JOINT_TYPE, joints(row))
        box.note(IMAGES, IMAGE_TYPE, image(3000 + row))
    with Bag(dumped(box)) as bag:
        found = list(bag.messages(bag.topics))
    assert sum(item.topic == JOINTS for item in found) == 50
    assert [item.message.width for item in found if item.topic == IMAGES] == [3047, 3048, 3049]


def test_one_kind_is_written_once_in_five_seconds_and_the_newest_bags_stay(
    make_box: Callable[..., BlackBox], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box()
    fill(box, 2)
    (box.folder / "notes").mkdir(parents=True)
    assert box.dump("velocity") and not box.dump("velocity") and box.dump("position")
    until(lambda: box.num_written == 2, "two bags")
    monkeypatch.setattr(black_box, "LEAST_GAP_S", 0.0)
    monkeypatch.setattr(black_box, "MAX_BAGS", 3)
    for number in range(3):
        dumped(box, f"kind{number}")
    until(lambda: len(list(box.folder.iterdir())) == 4, "the oldest to go")
    names = sorted(path.name.rpartition("_")[2] for path in box.folder.iterdir())
    assert names == ["kind0", "kind1", "kind2", "notes"]
    assert box.num_skipped == 1


def test_a_disk_that_refuses_is_logged_once_leaves_nothing_and_raises_nothing(
    make_box: Callable[..., BlackBox],
) -> None:
    box = make_box()
    fill(box, 500)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        for kind in ("velocity", "position", "table"):
            assert box.dump(kind)
        until(lambda: box.num_failed == 3, "three failures")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (complaint,) = box.node.log.errors
    assert f"[Errno {errno.EFBIG}]" in complaint and box.num_written == 0
    assert list(box.folder.iterdir()) == []
    with Bag(dumped(box, "tracking")) as bag:
        assert bag.message_count == 1500


def test_what_cannot_be_written_is_named_and_the_rest_is_there(
    make_box: Callable[..., BlackBox],
) -> None:
    box = make_box()
    box.note("/vendor", "vendor_msgs/msg/Mode", Bool())
    box.note("/wrong", JOINT_TYPE, Bool())
    fill(box, 1)
    with Bag(dumped(box)) as bag:
        assert bag.message_count >= 3
        assert "/vendor" in bag.about["left_out"]


def test_closing_writes_what_was_asked_for_and_then_nothing_more(
    make_box: Callable[..., BlackBox], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(black_box, "AFTER_S", 30.0)
    box = make_box()
    fill(box, 10)
    assert box.dump("velocity")
    box.close()
    assert box.num_written == 1
    assert not box.dump("position")
    off = make_box(0.0)
    off.note(JOINTS, JOINT_TYPE, joints(0.0))
    assert not off.dump("velocity")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_bag_that_was_cut_off_is_refused(
    make_box: Callable[..., BlackBox], share: float
) -> None:
    box = make_box()
    fill(box, 100)
    path = dumped(box)
    file = path / f"{path.name}_0.mcap"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BagError, match="truncated or damaged"), Bag(path) as bag:
        list(bag.messages(bag.topics))


def test_bags_that_are_missing_or_of_other_types_are_refused(
    make_box: Callable[..., BlackBox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BagError, match="no bag"):
        Bag(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"no bag.*metadata\.yaml"):
        Bag(tmp_path / "empty")
    box = make_box()
    fill(box, 1)
    path = dumped(box)
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(text.replace(JOINT_TYPE, "vendor_msgs/msg/Mode"))
    with pytest.raises(BagError, match=r"'vendor_msgs/msg/Mode' are not known"), Bag(path) as bag:
        list(bag.messages([JOINTS]))
    (path / "metadata.yaml").write_text(text)
    monkeypatch.setattr(bags, "definition", lambda _: ("", "RIHS01_other"))
    with pytest.raises(BagError, match=r"another .*RIHS01_other"), Bag(path) as bag:
        list(bag.messages([JOINTS]))
