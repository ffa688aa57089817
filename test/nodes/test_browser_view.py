"""The browser view hears what the learner says, shows it in a real browser, and ends cleanly."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("viser", reason="the extra `browser` is not installed")

from chromium import executable, running_browser  # noqa: E402
from deploy_helpers import (  # noqa: E402
    ENDLESS_TRAINING,
    ENVIRONMENT,
    NodeProcess,
    arguments_of,
    environment,
)
from PIL import Image as Picture  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from grpo_ros.algorithms.histograms import SHARE_EDGES, Histogram  # noqa: E402
from grpo_ros.nodes.browser.show import Show  # noqa: E402
from grpo_ros.nodes.browser_view import BrowserView  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.nodes.shared.process import spinning  # noqa: E402
from grpo_ros.nodes.training.learner_interface import Learner  # noqa: E402
from grpo_ros.nodes.training.training_view import TrainingView  # noqa: E402
from grpo_ros.randomness import Key  # noqa: E402
from grpo_ros.tasks.registry import make_task  # noqa: E402
from grpo_ros.training.group_paths import GroupPaths  # noqa: E402
from grpo_ros.training.observer import Progress  # noqa: E402
from grpo_ros.training.requests import Requests  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(300)]

DEADLINE_S = 150.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def view() -> Iterator[BrowserView]:
    arguments = ["--ros-args", "-p", "port:=0"]
    with (
        environment(ENVIRONMENT),
        spinning(BrowserView, BrowserView.close, args=arguments) as process,
    ):
        yield process.node


# ---------------------------------------------------------------- the node


def test_it_holds_what_a_learner_publishes(view: BrowserView, tmp_path: Path) -> None:
    learner = NodeProcess(
        "learner",
        tmp_path / "log",
        settings=arguments_of({**ENDLESS_TRAINING, "output": tmp_path}),
    )
    state, show = view.show.state, view.show
    try:
        wait_until(lambda: state.iteration >= 2, f"two iterations\n{learner.output}")
        wait_until(lambda: bool(show.paths.lines()) and bool(state.rewards), "paths and rewards")
        assert state.run == "pick_place grpo" and state.success is not None
        assert sum(state.rewards) == 4 and state.rollouts
        names = {shape.name for shape in show.bodies.shapes()}
        assert names == {"bodies/table", "bodies/cube", "bodies/goal"}
    finally:
        assert learner.stop() == 0


def test_joint_states_and_transforms_place_the_robot_alike(
    view: BrowserView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Show, "is_watched", True)
    robot = make_task("pick_place").robot
    view.show.take_urdf(robot.urdf)
    wait_until(lambda: view.show.robot is not None, "a robot")
    shown = view.show.robot
    assert shown is not None and view.show.problem == "" and shown.root == robot.base_frame
    names, positions = list(robot.arm_joints), [0.1 * each for each in range(1, 8)]
    expected = {child: at for _, child, at in shown.by_joints(names, positions)}
    view.show.take_joints(names, positions)
    wait_until(lambda: placed(view, "fr3_link3") == pytest.approx(expected["fr3_link3"]), "joints")
    elsewhere = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    view.show.take_links([("fr3_link2", "fr3_link3", elsewhere)])
    wait_until(lambda: placed(view, "fr3_link3") == elsewhere, "transforms stand above joints")


def placed(view: BrowserView, link: str) -> list[float]:
    """Return x, y, z and x, y, z, w of a link on the page."""
    assert view.show.robot is not None
    frame = view.show.robot.frame(link)
    w, x, y, z = frame.wxyz
    return [*map(float, frame.position), float(x), float(y), float(z), float(w)]


def test_a_description_that_is_none_is_named_on_the_page(
    view: BrowserView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Show, "is_watched", True)
    view.show.take_urdf("<robot")
    wait_until(lambda: "not XML" in view.show.problem, "the reason")
    view.show.take_urdf(make_task("pick_place").robot.urdf)
    wait_until(lambda: view.show.robot is not None and view.show.problem == "", "the next one")


def test_a_camera_is_listened_to_only_while_somebody_looks(
    view: BrowserView, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = view.create_publisher(Image, "some_camera/image_raw", qos.STATE)
    time.sleep(1.5)
    assert camera.get_subscription_count() == 0
    monkeypatch.setattr(Show, "is_watched", True)
    wait_until(lambda: camera.get_subscription_count() == 1, "a subscription")
    monkeypatch.setattr(Show, "is_watched", False)
    wait_until(lambda: camera.get_subscription_count() == 0, "its end")


# ---------------------------------------------------------------- the process


def test_a_taken_port_ends_it_with_one_line_and_sigterm_once_with_0(tmp_path: Path) -> None:
    port = free_port()
    first = NodeProcess("browser_view", tmp_path / "first", port=port)
    try:
        wait_until(lambda: f"http://127.0.0.1:{port}" in first.output, "the address")
        second = NodeProcess("browser_view", tmp_path / "second", port=port)
        assert second.wait(DEADLINE_S) == 1
        assert f"port {port}" in second.output and "browser_port:=N" in second.output
        assert "Traceback" not in second.output
    finally:
        assert first.stop() == 0
    assert "Traceback" not in first.output and "viser" not in first.output
    assert len(first.output.splitlines()) == 1, "an address, and nothing else"


# ---------------------------------------------------------------- in a browser


class Run:
    """The learner's two nodes, which a test makes speak."""

    def __init__(self, learner: Learner, view: TrainingView) -> None:
        self.learner, self.view = learner, view
        task = make_task("pick_place")
        view.show(task)
        self.scene = task.sample([Key(0)])
        learner.attach(Requests(), "pick_place grpo")

    def tell(self) -> None:
        """Tell of one iteration."""
        points = torch.zeros(8, 12, 3)
        points[..., 0] = 0.4 + 0.02 * torch.arange(8.0).unsqueeze(1)
        points[..., 2] = torch.linspace(0.1, 0.5, 12)
        outcome = torch.arange(8) % 2 == 0
        group = torch.zeros(8, dtype=torch.int64)
        self.view.on_groups(GroupPaths(points, group, outcome, outcome.float() - 0.5, 7))
        counts = (3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 4)
        self.learner.on_histograms({"reward_histogram": Histogram(SHARE_EDGES, counts)})
        progress = Progress("training", 1, 4, 0.93, (0.912, 0.944), 125.0, 6000.0)
        self.learner.on_iteration(
            {"iteration": 7, "env_steps": 70000, "train_success": 0.5}, progress
        )
        self.learner.on_alarm("diversity fell to a tenth of its start")


@contextlib.contextmanager
def speaking() -> Iterator[Run]:
    """Run both nodes of a learner in this process; their joints keep coming."""
    ended = threading.Event()
    with spinning(TrainingView, args=[]) as process:
        learner = Learner()
        process.executor.add_node(learner)
        run = Run(learner, process.node)

        def go_on() -> None:
            while not ended.wait(0.2):
                run.view.on_step(lambda: run.scene, 0.1)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield run
        finally:
            ended.set()
            thread.join(DEADLINE_S)
            process.executor.remove_node(learner)
            learner.destroy_node()


@pytest.mark.skipif(executable() is None, reason="no chromium is installed")
def test_a_browser_shows_the_scene_and_what_was_reached(tmp_path: Path) -> None:
    port = free_port()
    with environment(ENVIRONMENT), speaking() as run:
        view = NodeProcess("browser_view", tmp_path / "view", port=port)
        try:
            wait_until(lambda: f":{port}" in view.output, "the address")
            run.tell()
            with running_browser(tmp_path, 1000, 700) as browser:
                browser.open(f"http://127.0.0.1:{port}")
                text = browser.wait_for_text("iteration 7", "0.930", "[0.912, 0.944]")
                assert "pick_place" in text and "8 rollouts" in text
                assert "diversity fell" in text and "2 min 05 s left" in text
                wait_until(lambda: colours(browser, tmp_path) > 40, "a robot on the canvas")
        finally:
            assert view.stop() == 0
        assert "Traceback" not in view.output, view.output


def colours(browser: Any, folder: Path) -> int:
    """Return how many colours there are in the scene's right half, less its background's."""
    browser.screenshot(folder / "scene.png", x=150, y=150, width=450, height=500)
    with Picture.open(folder / "scene.png") as picture:
        found = picture.convert("RGB").getcolors(1 << 20) or []
    bright = [colour for _, colour in found if max(colour) > 110]  # the background is darker
    return len(bright)
