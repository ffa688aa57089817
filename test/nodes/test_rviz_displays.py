"""What RViz is told to show is there: known displays, live topics, types and QoS that fit.

RViz itself is not run: what it would subscribe to is compared with what is published.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

from deploy_helpers import ENVIRONMENT, environment  # noqa: E402
from rclpy.qos import (  # noqa: E402
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSLivelinessPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)

from grpo_ros.nodes.process import spinning  # noqa: E402
from grpo_ros.nodes.training.training_view import TrainingView  # noqa: E402
from grpo_ros.tasks.registry import make_task  # noqa: E402

pytestmark = pytest.mark.ros
DISPLAYS = Path(__file__).resolve().parents[2] / "config" / "rviz"
TYPES = {
    "rviz_default_plugins/RobotModel": "std_msgs/msg/String",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
}
WITHOUT_TOPIC = {"rviz_default_plugins/Grid", "rviz_default_plugins/TF"}
RELIABILITY = {
    "Reliable": QoSReliabilityPolicy.RELIABLE,
    "Best Effort": QoSReliabilityPolicy.BEST_EFFORT,
}
DURABILITY = {
    "Volatile": QoSDurabilityPolicy.VOLATILE,
    "Transient Local": QoSDurabilityPolicy.TRANSIENT_LOCAL,
}


def displays(name: str) -> list[dict[str, Any]]:
    return yaml.safe_load((DISPLAYS / name).read_text())["Visualization Manager"]["Displays"]


@pytest.fixture
def view() -> Iterator[TrainingView]:
    with environment(ENVIRONMENT), spinning(TrainingView, args=[]) as process:
        process.node.show(make_task("pick_place"))
        yield process.node


def test_every_display_of_training_is_known_and_its_topic_fits(view: TrainingView) -> None:
    found = displays("train.rviz")
    assert len({each["Name"] for each in found}) == len(found)
    topics = []
    for display in found:
        kind = display["Class"]
        if kind in WITHOUT_TOPIC:
            continue
        wanted = display.get("Topic") or display["Description Topic"]
        topics.append(wanted["Value"])
        (offered,) = view.get_publishers_info_by_topic(wanted["Value"])
        assert offered.topic_type == TYPES[kind], display["Name"]
        profile = QoSProfile(
            depth=wanted["Depth"],
            reliability=RELIABILITY[wanted["Reliability Policy"]],
            durability=DURABILITY[wanted["Durability Policy"]],
            liveliness=QoSLivelinessPolicy.AUTOMATIC,  # what the middleware makes of its default
        )
        verdict, why = qos_check_compatible(offered.qos_profile, profile)
        assert verdict == QoSCompatibility.OK, (display["Name"], why)
    assert "simulator_bridge/group_paths" in topics and "robot_description" in topics


def test_the_fixed_frame_that_the_file_falls_back_on_is_a_robots_base() -> None:
    tree = yaml.safe_load((DISPLAYS / "train.rviz").read_text())["Visualization Manager"]
    base = make_task("pick_place").robot.base_frame
    assert tree["Global Options"]["Fixed Frame"] == base
