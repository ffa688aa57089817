"""The training view: training that is watched gives what training that is not gives."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from deploy_helpers import DEADLINE_S, ENVIRONMENT, environment  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from grpo_ros.configuration import load_config  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.nodes.shared.process import destroy, spinning  # noqa: E402
from grpo_ros.nodes.shared.scene_markers import SceneMarkers  # noqa: E402
from grpo_ros.nodes.training.budget import Budget  # noqa: E402
from grpo_ros.nodes.training.learner_interface import Learner  # noqa: E402
from grpo_ros.nodes.training.training_view import TrainingView  # noqa: E402
from grpo_ros.simulators.mujoco.renderer import rendering_problem  # noqa: E402
from grpo_ros.tasks.base import Body  # noqa: E402
from grpo_ros.tasks.navigate import Navigate  # noqa: E402
from grpo_ros.training.trainer import Trainer  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(180)]
SMALL = (
    "task=pick_place",
    "collection.num_groups=3",
    "collection.group_size=4",
    "collection.env_steps=1500",
    "demonstrations.episodes=2",
    "behaviour_cloning.num_steps=20",
    "evaluation.every_iterations=2",
    "evaluation.episodes=4",
    "evaluation.final_episodes=4",
    "film=false",
)
HEARD = {
    "joint_states": (JointState, qos.STATE),
    "/tf": (TFMessage, qos.TF),
    "simulator_bridge/markers": (MarkerArray, qos.LATCHED),
    "simulator_bridge/group_paths": (MarkerArray, qos.LATCHED),
    **({} if rendering_problem() else {"overview/image_raw": (Image, qos.STATE)}),
}


def eager() -> TrainingView:
    """Return a view that may take all the time, so that nothing is left out."""
    return TrainingView(parameter_overrides=[Parameter("maximum_share", value=1.0)])


@contextlib.contextmanager
def watching() -> Iterator[tuple[Learner, TrainingView, dict[str, list[Any]]]]:
    """Spin the learner's nodes and a listener to what is drawn, all in this process."""
    heard: dict[str, list[Any]] = {topic: [] for topic in HEARD}
    with environment(ENVIRONMENT), spinning(eager, args=[]) as process:
        others = Learner(), Node("test_client")
        for node in others:
            process.executor.add_node(node)
        for topic, (kind, profile) in HEARD.items():
            others[1].create_subscription(kind, topic, heard[topic].append, profile)
        try:
            yield others[0], process.node, heard
        finally:
            process.node.close()
            for node in others:
                process.executor.remove_node(node)
                destroy(node)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_run_that_is_watched_is_that_which_is_not_bit_for_bit(
    tmp_path: Path, algorithm: str
) -> None:
    settings = (*SMALL, f"algorithm={algorithm}")
    alone = Trainer(load_config([*settings, f"output={tmp_path / 'alone'}"]))
    alone.run()
    with watching() as (learner, view, heard):
        config = load_config([*settings, f"output={tmp_path / 'watched'}"])
        watched = Trainer(config, observers=[learner, view])
        view.show(watched.task)
        deadline = time.monotonic() + DEADLINE_S
        while not (view.wants_paths and view.count_subscribers("/tf")):
            assert time.monotonic() < deadline, "nobody subscribes"
            time.sleep(0.02)
        watched.run()
        while not all(heard.values()):
            assert time.monotonic() < deadline, {k: len(v) for k, v in heard.items()}
            time.sleep(0.02)
    assert watched.state_hash() == alone.state_hash()
    ours, theirs = (trainer.run_directory.metrics.read_bytes() for trainer in (watched, alone))
    assert ours == theirs
    texts = [m.text for array in heard["simulator_bridge/markers"] for m in array.markers[-1:]]
    assert any("the one before: " in text for text in texts), texts[-3:]
    paths = heard["simulator_bridge/group_paths"][-1].markers
    assert sum(marker.type == Marker.LINE_STRIP for marker in paths) >= 12


def test_a_base_without_joint_states_is_shown(tmp_path: Path) -> None:
    settings = ("task=navigate", *SMALL[1:], f"output={tmp_path}", "collection.env_steps=400")
    with watching() as (learner, view, heard):
        trainer = Trainer(load_config(settings), observers=[learner, view])
        assert isinstance(trainer.task, Navigate)
        view.show(trainer.task)
        deadline = time.monotonic() + DEADLINE_S
        while not view.count_subscribers("/tf"):
            assert time.monotonic() < deadline, "nobody subscribes"
            time.sleep(0.02)
        trainer.run()
        while not heard["/tf"]:
            assert time.monotonic() < deadline, "nothing is published"
            time.sleep(0.02)
    frames = {transform.child_frame_id for m in heard["/tf"] for transform in m.transforms}
    assert {"base_link", "goal"} <= frames and not heard["joint_states"]


def test_what_takes_longer_than_its_share_is_done_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(rate_hz=10.0, share=0.01)
    assert budget.is_due
    for spent_s, wait_s in ((0.0001, 0.1), (0.004, 0.4)):
        began_s = now[0]
        with budget.spending():
            now[0] += spent_s
        now[0] = began_s + 0.99 * wait_s
        assert not budget.is_due
        now[0] = began_s + 1.01 * wait_s
        assert budget.is_due


def test_markers_of_bodies_that_went_are_taken_away_once() -> None:
    table = Body("table", "box", (0.4, 0.5, 0.02), motion="static")
    ball = Body("ball", "sphere", (0.03,))
    markers = SceneMarkers([table, ball], "base")
    pose = [0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 1.0]
    first = markers.message(1, {"ball": pose}, "running").markers
    assert first[0].action == Marker.DELETEALL
    (drawn,) = (m for m in first if m.text == "ball")
    assert drawn.type == Marker.SPHERE and drawn.scale.x == pytest.approx(0.06)
    assert (drawn.pose.position.x, drawn.header.frame_id) == (0.1, "base")
    text = first[-1]
    assert (text.type, text.text, text.action) == (
        Marker.TEXT_VIEW_FACING,
        "running",
        Marker.ADD,
    )
    again = markers.message(2, {"ball": pose}, "success", True).markers
    assert again[0].action != Marker.DELETEALL and again[-1].color.g > again[-1].color.r
    markers.follow([table])
    gone = markers.message(3, {}, "").markers
    assert gone[0].action == Marker.DELETEALL and gone[-1].action == Marker.DELETE
    assert [m.text for m in gone[1:-1]] == ["table"]
    assert len({(m.ns, m.id) for m in first[1:]}) == len(first) - 1
