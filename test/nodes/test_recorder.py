"""The recorder: what it heard is in the bag, whatever ends it, and it counts what is not."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from bag_readers import agreed, channels_of, decoded, information, records_of  # noqa: E402
from deploy_helpers import (  # noqa: E402
    DEADLINE_S,
    SMALL_TRAINING,
    Client,
    NodeProcess,
    arguments_of,
    export_untrained,
    running_client,
)
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from trajectory_msgs.msg import JointTrajectory  # noqa: E402

from grpo_ros.nodes.recording.bags import definition  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE = DurabilityPolicy.VOLATILE
HEARD, HEARD_AT_BEST = (qos.recorded(kind, VOLATILE) for kind in (RELIABLE, BEST_EFFORT))
ARM = load_robot("franka_fr3").interfaces.arm_trajectory_topic
TRAINING = {**SMALL_TRAINING, "task": "pick_place", "collection.env_steps": 4000}


@pytest.fixture
def client() -> Iterator[Client]:
    with running_client() as client:
        yield client


def begun(folder: Path, /, **parameters: Any) -> NodeProcess:
    """Return a recorder that records into folder/bag."""
    given = {"folder": folder, "bag": "bag", **parameters}
    recorder = NodeProcess("recorder", folder / "recorder.log", **given)
    until(lambda: "recording into" in recorder.output or recorder.process.poll() is not None)
    return recorder


def until(condition: Any, seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def heard_by(client: Client, publisher: Any, number: int = 1) -> None:
    """Return once a publisher has its subscriber, and that has had time to know of it."""
    until(lambda: publisher.get_subscription_count() >= number)
    time.sleep(0.3)


def of_topic(found: list[Any], topic: str) -> list[Any]:
    return [message for message in found if message.topic == topic]


def check_nothing_is_lost(bag: Path, client: Client, kinds: dict[str, Any]) -> dict[str, int]:
    """Compare the bag with what was heard besides; return how much was compared by topic.

    Both joined at moments of their own and left after the last message, so the shorter is the
    end of the longer one.
    """
    found, compared = agreed(bag), {}
    for topic, kind in kinds.items():
        recorded = [deserialize_message(m.data, kind) for m in of_topic(found, topic)]
        heard = client.heard(topic)
        compared[topic] = number = min(len(recorded), len(heard))
        assert number and recorded[-number:] == heard[-number:], (topic, len(recorded), len(heard))
        assert len(decoded(bag, topic)) == len(recorded)
    return compared


def test_a_training_run_is_recorded_whole(client: Client, tmp_path: Path) -> None:
    kinds = {
        "/joint_states": JointState,
        "/tf": TFMessage,
        "/clock": Clock,
    }
    recorder = begun(tmp_path, about="['task=pick_place','config_sha256=12ab']")
    for topic, kind in kinds.items():
        client.listen(kind, topic, HEARD_AT_BEST if kind is Clock else HEARD)
    settings = arguments_of({**TRAINING, "output": tmp_path / "runs"})
    learner = NodeProcess("learner", tmp_path / "learner.log", settings=settings)
    try:
        assert learner.wait(200.0) == 0, learner.output
        time.sleep(0.5)
    finally:
        codes = [learner.stop(), recorder.stop()]
    assert codes == [0, 0], recorder.output
    bag = tmp_path / "bag"
    compared = check_nothing_is_lost(bag, client, kinds)
    assert compared["/joint_states"] > 5, compared  # within the view's share of the time
    about = information(bag)["custom_data"]
    assert json.loads(about["lost"]) == {} and about["dropped"] == "0"
    assert (about["task"], about["config_sha256"]) == ("pick_place", "12ab")
    assert about["ros_distro"] == information(bag)["ros_distro"] == os.environ["ROS_DISTRO"]
    assert about["grpo_ros"] == json.loads(about["versions"])["grpo_ros"]
    (description,) = decoded(bag, "/robot_description")
    assert "<robot" in description.data
    topics = {message.topic for message in agreed(bag)}
    assert {"/learner/metrics", "/simulator_bridge/markers", "/tf_static", "/rosout"} <= topics
    assert "0 lost" in recorder.output and recorder.output.count("messages of") == 1


def test_a_deployment_in_lock_step_is_recorded_command_by_command(
    client: Client, tmp_path: Path
) -> None:
    policy = export_untrained(tmp_path / "policy.onnx")
    recorder = begun(tmp_path, policy=policy)
    kinds = {f"/{ARM}": JointTrajectory, "/joint_states": JointState}
    for topic, kind in kinds.items():
        client.listen(kind, topic, HEARD)
    common = {"policy": policy, "lock_step": True}
    nodes = [
        NodeProcess("simulator_bridge", tmp_path / "bridge.log", **common),
        NodeProcess("policy_server", tmp_path / "server.log", **common, use_sim_time=True),
    ]
    try:
        client.wait_for_publisher(f"/{ARM}")
        until(lambda: client.node.count_subscribers(f"/{ARM}") == 3)  # bridge, bag and client
        trials = {"episodes": 4, "compare_in_process": False}
        nodes.append(NodeProcess("evaluator", tmp_path / "evaluator.log", **common, **trials))
        assert nodes[-1].wait(200.0) == 0, nodes[-1].output
    finally:
        codes = [node.stop() for node in (*reversed(nodes), recorder)]
    assert codes == [0] * 4, recorder.output
    bag = tmp_path / "bag"
    compared = check_nothing_is_lost(bag, client, kinds)
    (path,) = (tmp_path / "deployments").glob("*.json")
    report = json.loads(path.read_text())
    assert sum(trial["periods"] for trial in report["trials"]) == 48
    commands = of_topic(agreed(bag), f"/{ARM}")
    assert len(commands) >= 48 and compared[f"/{ARM}"] >= 48
    assert [m.sequence for m in commands] == list(range(1, len(commands) + 1))
    about = information(bag)["custom_data"]
    assert json.loads(about["lost"]) == {}
    assert about["policy_sha256"] == report["policy_sha256"] and about["policy"] == "policy.onnx"
    assert (about["task"], about["robot"]) == ("pick_place", "franka_fr3")
    assert about["contract_sha256"]
    records = records_of(bag / "bag_0.mcap")
    assert records["grpo_ros"]["policy_sha256"] == about["policy_sha256"]
    assert "version: 9" in records["rosbag2"]["serialized_metadata"]


def test_offered_profiles_hashes_and_latched_messages_are_kept(
    client: Client, tmp_path: Path
) -> None:
    node = client.node
    latched = node.create_publisher(String, "/description", qos.LATCHED)
    latched.publish(String(data="before the recorder was there"))
    unreliable = node.create_publisher(JointState, "/fast", qos.SENSOR)
    picture = node.create_publisher(Image, "/picture", qos.SENSOR)
    recorder = begun(tmp_path, exclude="['/rosout','/param*','/diag*']")
    try:
        heard_by(client, unreliable)
        for row in range(20):
            unreliable.publish(JointState(name=["a" * row]))
            time.sleep(0.01)
        assert not picture.get_subscription_count()
        time.sleep(0.5)
    finally:
        assert recorder.stop() == 0, recorder.output
    bag = tmp_path / "bag"
    found = agreed(bag)
    assert {m.topic for m in found} == {"/description", "/fast"}
    assert [m.data for m in decoded(bag, "/description")] == ["before the recorder was there"]
    assert [len(m.name[0]) for m in decoded(bag, "/fast")] == list(range(20))
    for message in of_topic(found, "/fast"):
        assert 0 <= message.log_ns - message.publish_ns < 2e9
    channels = channels_of(bag / "bag_0.mcap")
    expected = {
        "/description": ("reliable", "transient_local"),
        "/fast": ("best_effort", "volatile"),
    }
    for entry in information(bag)["topics_with_message_count"]:
        topic = entry["topic_metadata"]
        _, digest = definition(topic["type"])
        assert (
            topic["type_description_hash"] == channels[topic["name"]]["topic_type_hash"] == digest
        )
        (profile,) = topic["offered_qos_profiles"]
        assert (profile["reliability"], profile["durability"]) == expected[topic["name"]]
        assert expected[topic["name"]][0] in channels[topic["name"]]["offered_qos_profiles"]


@pytest.mark.parametrize("after_s", [1.3, 2.1])
def test_a_bag_is_whole_after_kill_9_and_lacks_less_than_the_last_second(
    client: Client, tmp_path: Path, after_s: float
) -> None:
    publisher = client.node.create_publisher(JointState, "/numbered", qos.STATE)
    recorder = begun(tmp_path)
    sent: list[tuple[float, int]] = []
    try:
        heard_by(client, publisher)
        deadline = time.monotonic() + after_s
        while time.monotonic() < deadline:
            sent.append((time.monotonic(), len(sent)))
            publisher.publish(JointState(velocity=[float(len(sent) - 1)]))
            time.sleep(0.005)
    finally:
        recorder.process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        recorder.wait()
    bag = tmp_path / "bag"
    agreed(bag)
    numbers = [m.velocity[0] for m in decoded(bag, "/numbered")]
    must = max(number for at_s, number in sent if killed_s - at_s > 1.0)
    assert numbers == list(range(len(numbers))) and numbers[-1] >= must, (must, numbers[-1:])
    assert information(bag)["relative_file_paths"] == ["bag_0.mcap"]
    assert information(bag)["message_count"] > 0


def test_what_is_lost_is_counted(client: Client, tmp_path: Path) -> None:
    publisher = client.node.create_publisher(JointState, "/flood", qos.SENSOR)
    recorder = begun(tmp_path)
    number = 20_000
    try:
        heard_by(client, publisher)
        for _ in range(number):
            publisher.publish(JointState(name=["x" * 500]))
        time.sleep(0.3)
        publisher.publish(JointState())  # its number tells of those before it
        time.sleep(0.5)
    finally:
        assert recorder.stop() == 0, recorder.output
    found = of_topic(agreed(tmp_path / "bag"), "/flood")
    lost = json.loads(information(tmp_path / "bag")["custom_data"]["lost"]).get("/flood", 0)
    assert len(found) + lost == number + 1
    assert f"/flood: {len(found)}, {lost} lost" in recorder.output


def test_another_file_follows_after_a_span(client: Client, tmp_path: Path) -> None:
    publisher = client.node.create_publisher(JointState, "/numbered", qos.STATE)
    recorder = begun(tmp_path, max_file_s=0.5, include="['/numbered']")
    try:
        heard_by(client, publisher)
        for row in range(200):
            publisher.publish(JointState(velocity=[float(row)]))
            time.sleep(0.01)
    finally:
        assert recorder.stop() == 0, recorder.output
    names = information(tmp_path / "bag")["relative_file_paths"]
    assert len(names) >= 3 and names == [f"bag_{row}.mcap" for row in range(len(names))]
    agreed(tmp_path / "bag")
    assert [m.velocity[0] for m in decoded(tmp_path / "bag", "/numbered")] == list(range(200))


def test_a_publisher_that_offers_less_is_heard_too(client: Client, tmp_path: Path) -> None:
    first = client.node.create_publisher(JointState, "/mixed", qos.STATE)
    recorder = begun(tmp_path, include="['/mixed']")
    try:
        heard_by(client, first)
        first.publish(JointState(name=["reliable"]))
        time.sleep(0.2)
        second = client.node.create_publisher(JointState, "/mixed", qos.SENSOR)
        heard_by(client, second)
        second.publish(JointState(name=["not"]))
        first.publish(JointState(name=["reliable"]))
        time.sleep(0.5)
    finally:
        assert recorder.stop() == 0, recorder.output
    names = [m.name[0] for m in decoded(tmp_path / "bag", "/mixed")]
    assert sorted(names) == ["not", "reliable", "reliable"], recorder.output
    assert "offers less" in recorder.output


def test_what_cannot_be_begun_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    (tmp_path / "file").write_text("")
    for parameters, expected in (
        ({}, "there is a bag already; expected a folder that does not exist; give another name"),
        ({"folder": tmp_path / "file"}, "not written: [Errno 20] Not a directory"),
        ({"bag": "other", "policy": tmp_path / "nowhere.onnx"}, "expected a policy file"),
        ({"bag": "other", "about": "['task']"}, "'task'; expected key=value"),
        ({"bag": "other", "max_file_mb": -1}, "max_file_mb"),
    ):
        recorder = begun(tmp_path, **parameters)
        assert recorder.wait() == 1 and expected in recorder.output, recorder.output
    assert not (tmp_path / "other").exists()


def test_a_disk_that_refuses_ends_it_with_1_and_leaves_a_whole_bag(
    client: Client, tmp_path: Path
) -> None:
    publisher = client.node.create_publisher(JointState, "/large", qos.STATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        recorder = begun(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    try:
        heard_by(client, publisher)
        deadline = time.monotonic() + DEADLINE_S
        while recorder.process.poll() is None and time.monotonic() < deadline:
            publisher.publish(JointState(name=["x" * 2000]))
            time.sleep(0.05)
        assert recorder.wait() == 1
    finally:
        recorder.stop()
    assert "[Errno 27]" in recorder.output and "bag_0.mcap" in recorder.output
    assert "split the bag" in recorder.output
    assert len(of_topic(agreed(tmp_path / "bag"), "/large")) > 5
