"""What RViz is told to show is there: known displays, live topics, types and QoS that fit.

RViz itself is not run: what it would subscribe to is subscribed to in its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("rclpy")

from bridge_in_process import bridge_in_process  # noqa: E402
from deploy_helpers import (  # noqa: E402
    DEADLINE_S,
    ENVIRONMENT,
    Client,
    NodeProcess,
    environment,
    export_untrained,
)
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from rosidl_runtime_py.utilities import get_message  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from grpo_ros.nodes import simulator_bridge  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.shared.process import destroy, spinning  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.nodes.training.training_view import TrainingView  # noqa: E402
from grpo_ros.randomness import Key  # noqa: E402
from grpo_ros.simulators.mujoco.renderer import rendering_problem  # noqa: E402
from grpo_ros.tasks.base import Task  # noqa: E402
from grpo_ros.tasks.registry import make_task  # noqa: E402
from grpo_ros.tasks.scene_state import SceneState  # noqa: E402
from grpo_ros.training.group_paths import GroupPaths  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(180)]
DISPLAYS = Path(__file__).resolve().parents[2] / "config" / "rviz"
FILES = ("train.rviz", "deploy.rviz")
MARKERS, IMAGES, SCAN = "simulator_bridge/markers", "overview/image_raw", "scan"
TYPES = {
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/Path": "nav_msgs/msg/Path",
    "rviz_default_plugins/LaserScan": "sensor_msgs/msg/LaserScan",
}
WITHOUT_TOPIC = {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
RELIABILITY = {
    "Reliable": qos.STATE.reliability,
    "Best Effort": qos.SENSOR.reliability,
}
DURABILITY = {
    "Volatile": qos.STATE.durability,
    "Transient Local": qos.LATCHED.durability,
}


def manager(name: str) -> dict[str, Any]:
    return yaml.safe_load((DISPLAYS / name).read_text())["Visualization Manager"]


def shown(name: str) -> dict[str, tuple[str, QoSProfile]]:
    """Return type and QoS of each topic that a file shows."""
    found = {}
    for display in manager(name)["Displays"]:
        if display["Class"] not in WITHOUT_TOPIC:
            topic = display.get("Topic") or display["Description Topic"]
            found[topic["Value"]] = (
                TYPES[display["Class"]],
                QoSProfile(
                    depth=topic["Depth"],
                    reliability=RELIABILITY[topic["Reliability Policy"]],
                    durability=DURABILITY[topic["Durability Policy"]],
                ),
            )
    if rendering_problem():
        found.pop(IMAGES)  # nobody offers images where nothing renders
    return found


def watch(client: Client, name: str, topics: set[str]) -> None:
    """Subscribe as RViz does to some of a file's topics; what is offered has to fit."""
    for topic, (kind, profile) in shown(name).items():
        if topic not in topics:
            continue
        client.wait_for_publisher(topic)
        (offered,) = client.node.get_publishers_info_by_topic(topic)
        assert offered.topic_type == kind, topic
        client.listen(get_message(kind), topic, profile)
        (asked,) = client.node.get_subscriptions_info_by_topic(topic)
        verdict, why = qos_check_compatible(offered.qos_profile, asked.qos_profile)
        assert verdict == QoSCompatibility.OK, (topic, why)
    client.listen(TFMessage, "/tf", qos.TF)
    client.listen(TFMessage, "/tf_static", qos.TF_STATIC)


def frames(client: Client) -> set[str]:
    """Return the frames that are known by now."""
    heard = [*client.heard("/tf"), *client.heard("/tf_static")]
    transforms = [transform for message in heard for transform in message.transforms]
    return {t.header.frame_id for t in transforms} | {t.child_frame_id for t in transforms}


def text_of(message: Any) -> str:
    (text,) = [m.text for m in message.markers if m.type == Marker.TEXT_VIEW_FACING]
    return text


@contextlib.contextmanager
def viewed(task: Task) -> Iterator[tuple[TrainingView, Client]]:
    """Spin a training view of a task and a client."""
    with environment(ENVIRONMENT), spinning(TrainingView, args=[]) as process:
        node = Node("test_client")
        process.executor.add_node(node)
        process.node.show(task)
        try:
            yield process.node, Client(node)
        finally:
            process.node.close()
            process.executor.remove_node(node)
            destroy(node)


@pytest.mark.parametrize("name", FILES)
def test_displays_are_known_have_names_of_their_own_and_a_robots_base_to_stand_on(
    name: str,
) -> None:
    tree = manager(name)
    classes = {display["Class"] for display in tree["Displays"]}
    assert classes <= TYPES.keys() | WITHOUT_TOPIC
    assert len({display["Name"] for display in tree["Displays"]}) == len(tree["Displays"])
    assert tree["Global Options"]["Fixed Frame"] == make_task("pick_place").robot.base_frame


def test_all_that_the_view_of_training_shows_comes() -> None:
    task = make_task("pick_place")
    scene = task.sample([Key(0)])
    with viewed(task) as (view, client):
        topics = set(shown("train.rviz"))
        assert topics >= {MARKERS, "simulator_bridge/group_paths", "robot_description"}
        assert not view.wants_paths, "nobody looks"
        watch(client, "train.rviz", topics)
        assert view.wants_paths
        points = torch.zeros(2, 3, 3)
        members = torch.zeros(2, dtype=torch.int64), torch.tensor([True, False])
        view.on_groups(GroupPaths(points, *members, torch.tensor([0.5, -0.5]), 0))
        assert not view.wants_paths, "not so soon again"
        deadline = time.monotonic() + DEADLINE_S
        while not all(client.heard(topic) for topic in (*topics, "/tf")):
            assert time.monotonic() < deadline, {t: len(client.heard(t)) for t in topics}
            view.on_step(lambda: scene, 0.05)
            time.sleep(0.02)
        assert text_of(client.heard(MARKERS)[-1]) == "running"
        assert task.robot.base_frame in frames(client)


def test_all_that_the_view_of_a_deployed_arm_shows_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seeing(name: str, config: Any) -> Task:
        return make_task(name, dataclasses.replace(config, cameras=("overview",)))

    monkeypatch.setattr(simulator_bridge, "make_task", seeing)
    policy = export_untrained(tmp_path / "policy.onnx", horizon=200)
    with bridge_in_process(SimulatorBridge, task="pick_place") as client:
        server = NodeProcess(
            "policy_server", tmp_path / "server.log", policy=policy, use_sim_time=True
        )
        try:
            topics = set(shown("deploy.rviz")) - {SCAN}
            watch(client, "deploy.rviz", topics)
            assert client.call(Trigger, "simulator_bridge/reset").success
            started = client.call(Trigger, "policy_server/start")
            assert started.success, (started.message, server.output)
            for topic in (*topics, "/tf", "/tf_static"):
                client.wait_for(topic)
            way = client.wait_for("policy_server/predicted_path")
            assert way.header.frame_id == client.bridge.task.robot.base_frame
            assert len(way.poses) == 1 + client.bridge.sim.simulator.contract.chunk_size
            client.wait_for(MARKERS, lambda message: text_of(message) == "episode 0: running")
            assert client.bridge.task.robot.base_frame in frames(client)
        finally:
            assert server.stop() == 0


def test_all_that_the_view_of_a_base_shows_comes() -> None:
    with bridge_in_process(SimulatorBridge, task="navigate") as client:
        topics = {SCAN, MARKERS, "robot_description"}
        assert topics <= set(shown("deploy.rviz"))
        watch(client, "deploy.rviz", topics)
        assert client.call(Trigger, "simulator_bridge/reset").success
        for topic in (*topics, "/tf"):
            client.wait_for(topic)
        client.wait_for(MARKERS, lambda message: text_of(message) == "episode 0: running")
        scan = client.heard(SCAN)[-1]
        robot = client.bridge.task.robot
        assert {robot.base_frame, scan.header.frame_id} <= frames(client)


def test_how_an_episode_ended_stands_above_it_and_is_kept_for_whoever_comes() -> None:
    with bridge_in_process(SimulatorBridge, task="pick_place") as client:
        client.call(Trigger, "simulator_bridge/reset")
        client.look(lambda: client.bridge.on_failure("test", "no reason"))
        kind, profile = shown("deploy.rviz")[MARKERS]
        client.listen(get_message(kind), MARKERS, profile)
        client.wait_for(MARKERS, lambda message: text_of(message) == "episode 0: does not count")
        bodies = {m.text for m in client.heard(MARKERS)[-1].markers if m.ns == "bodies"}
        assert bodies == {body.name for body in client.bridge.task.bodies()}


def test_a_scene_of_training_is_not_even_made_where_nobody_listens() -> None:
    task = make_task("pick_place")
    made: list[SceneState] = []

    def scene() -> SceneState:
        made.append(task.sample([Key(0)]))
        return made[-1]

    with viewed(task) as (view, client):
        for _ in range(5):
            view.on_step(scene, 0.05)
            time.sleep(0.1)
        assert not made
        client.listen(Clock, "/clock", qos.CLOCK)
        deadline = time.monotonic() + DEADLINE_S
        while not made:
            assert time.monotonic() < deadline
            view.on_step(scene, 0.05)
            time.sleep(0.02)
        client.wait_for("/clock", lambda message: messages.to_ns(message.clock) >= 300_000_000)


@pytest.mark.skipif(bool(rendering_problem()), reason="nothing renders here")
def test_images_of_training_are_drawn_where_somebody_looks_and_else_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from grpo_ros.nodes.training import watched_images

    made: list[Any] = []

    def renderer(*args: Any) -> Any:
        made.append(args)
        return original(*args)

    original = watched_images.SceneRenderer
    monkeypatch.setattr(watched_images, "SceneRenderer", renderer)
    config = dataclasses.replace(make_task("pick_place").config, cameras=("top",))
    task = make_task("pick_place", config)
    scene = task.sample([Key(0)])
    with viewed(task) as (view, client):
        for _ in range(5):
            view.on_step(lambda: scene, 0.05)
            time.sleep(0.1)
        assert not made
        kind, profile = shown("train.rviz")[IMAGES]
        client.listen(get_message(kind), "top/image_raw", profile)
        deadline = time.monotonic() + DEADLINE_S
        while not client.heard("top/image_raw"):
            assert time.monotonic() < deadline
            view.on_step(lambda: scene, 0.05)
            time.sleep(0.02)
        assert len(made) == 1, "of the camera that is looked through"
        image = client.heard("top/image_raw")[0]
        assert (image.width, image.height) == task.config.image_size
        assert len(set(image.data)) > 10
