"""What the browser view makes of messages, without a node and without a browser."""

from __future__ import annotations

import re
import socket
from xml.etree import ElementTree

import pytest
import torch

pytest.importorskip("rclpy")

from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from grpo_ros.errors import ConfigurationError, MissingExtraError  # noqa: E402
from grpo_ros.nodes.browser import charts, page  # noqa: E402
from grpo_ros.nodes.browser.marker_scene import MarkerScene  # noqa: E402
from grpo_ros.nodes.browser.panel import panel_html  # noqa: E402
from grpo_ros.nodes.browser.run_state import (  # noqa: E402
    ERROR,
    LEARNER,
    MAX_POINTS,
    OK,
    SERVER,
    WARN,
    RunState,
    Success,
    counts,
    thinned,
)
from grpo_ros.nodes.shared.scene_markers import SceneMarkers  # noqa: E402
from grpo_ros.nodes.training.path_markers import ALPHA, PathMarkers  # noqa: E402
from grpo_ros.tasks.registry import make_task  # noqa: E402
from grpo_ros.training.group_paths import GroupPaths  # noqa: E402
from grpo_ros.training.statistics import wilson_interval  # noqa: E402

pytestmark = pytest.mark.ros


def values(**changed: str) -> dict[str, str]:
    found = {
        "state": "running",
        "run": "pick_place grpo",
        "phase": "training",
        "iteration": "7",
        "env_steps": "70000",
        "share_done": "0.25",
        "train_success": "0.5",
        "success": "0.930",
        "success_wilson_95": "[0.912, 0.944]",
        "reward_histogram": "4 0 0 0 0 0 0 0 0 0 12",
        "steps_per_s": "6000",
        "time_left": "2 min 05 s",
    }
    return {**found, **changed}


def training(level: int = OK, message: str = "running", **changed: str) -> RunState:
    state = RunState()
    state.take_status(LEARNER, level, message, values(**changed), now_s=1.0)
    return state


def group_paths() -> GroupPaths:
    """Two rollouts of one group; the first is better."""
    points = torch.zeros(2, 4, 3)
    points[:, :, 2] = torch.tensor([0.0, 0.1, 0.2, 0.3])
    advantage = torch.tensor([0.5, -0.5])
    return GroupPaths(points, torch.zeros(2, dtype=torch.int64), advantage > 0, advantage, 0)


# ---------------------------------------------------------------- the run


def test_diagnostics_of_the_learner_become_progress_success_and_rewards() -> None:
    state = training()
    assert (state.kind, state.iteration, state.env_steps, state.share_done) == (
        "training",
        7,
        70000,
        0.25,
    )
    assert state.success == Success(0.93, 0.912, 0.944)
    assert sum(state.rewards) == 16 and state.rewards[-1] == 12
    assert state.curve == [(70000, state.success)] and state.rollouts == [(70000, 0.5)]


def test_a_curve_grows_with_steps_and_begins_anew_with_another_run() -> None:
    state = training()
    for _ in range(3):  # said again and again, once a second
        state.take_status(LEARNER, OK, "running", values(), 2.0)
    assert len(state.rollouts) == 1
    state.take_status(LEARNER, OK, "running", values(env_steps="80000", success="0.95"), 3.0)
    assert [steps for steps, _ in state.curve] == [70000, 80000]
    state.take_status(LEARNER, OK, "running", values(env_steps="100"), 4.0)
    assert [steps for steps, _ in state.rollouts] == [100]


def test_a_long_curve_is_thinned_and_keeps_its_last_point() -> None:
    points = list(range(MAX_POINTS + 1))
    assert thinned(points)[-1] == points[-1] and len(thinned(points)) < len(points) * 0.6
    assert thinned(points[:10]) == points[:10]


def test_an_alarm_and_a_failure_are_what_the_status_says_beside_its_state() -> None:
    assert training(WARN, "running; diversity fell to 0.1").alarm == "diversity fell to 0.1"
    assert training(ERROR, "no disk space").alarm == "no disk space"
    assert training(OK, "running").alarm == ""
    state = RunState()
    state.take_status(SERVER, WARN, "running; late", {"state": "active", "phase": "running"}, 1.0)
    assert state.alarm == "late"


def test_other_nodes_diagnostics_are_passed_over_and_silence_is_noticed() -> None:
    state = RunState()
    state.take_status("battery", ERROR, "low", {}, 1.0)
    assert state.kind == "" and not state.is_quiet(100.0)
    state = training()
    assert not state.is_quiet(3.0) and state.is_quiet(30.0)
    assert not training(OK, "finished", state="finished").is_quiet(30.0)


def test_what_is_no_number_counts_as_not_known() -> None:
    state = training(iteration="?", success_wilson_95="nan", reward_histogram="1 x", env_steps="")
    assert (state.iteration, state.env_steps, state.success, state.rewards) == (0, 0, None, ())
    assert counts("") == () and counts("1 2") == (1, 2)


def test_episodes_of_a_deployment_are_counted_once_with_their_interval() -> None:
    state = RunState()
    state.take_status(SERVER, OK, "active", {"state": "active", "phase": "running"}, 1.0)
    for episode, success in ((0, "True"), (1, "False"), (1, "False"), (2, "True")):
        found = {"episode": str(episode), "success": success, "error": ""}
        state.take_episode("finished", found)
    state.take_episode("running", {"episode": "3"})
    state.take_episode("failed", {"episode": "3", "success": "True", "error": "no command"})
    assert state.success == Success(2 / 3, *wilson_interval(2, 3))
    assert "2 of 3 episodes" in panel_html(state, 1.0)


# ---------------------------------------------------------------- the panel


def test_the_panel_tells_success_with_its_interval_iteration_and_alarms() -> None:
    state = training(WARN, "running; <b>diversity</b> fell")
    html = panel_html(state, 1.0, "no robot")
    ElementTree.fromstring(html)
    text = re.sub(r"<[^>]+>", " ", html)
    for wanted in ("0.930", "[0.912, 0.944]", "iteration 7", "2 min 05 s left", "70,000"):
        assert wanted in text
    assert "no robot" in text and "16 rollouts" in text
    assert "&lt;b&gt;diversity" in html, "what others say is text"
    assert "pick_place grpo" in text and 'role="alert"' in html


def test_a_panel_without_news_says_what_is_waited_for() -> None:
    assert "waiting for" in panel_html(RunState(), 0.0)
    assert "nothing has come" in panel_html(training(), 60.0)


def test_bars_of_a_histogram_are_as_tall_as_their_counts() -> None:
    bars = ElementTree.fromstring(charts.histogram([2, 0, 4], height=124)).findall("rect")
    heights = [float(bar.get("height", "")) for bar in bars]
    assert heights[0] == pytest.approx(heights[2] / 2.0, abs=0.1) and heights[1] == 0.0
    assert [bar.get("fill") for bar in bars] == [charts.BAD, charts.EVEN, charts.GOOD]
    ElementTree.fromstring(charts.histogram([]))


def test_a_curve_lies_within_its_picture_and_its_interval_around_it() -> None:
    points = [(0, Success(0.5, 0.4, 0.6)), (1000, Success(1.0, 0.9, 1.0))]
    svg = ElementTree.fromstring(charts.curve(points, [(0, 0.2), (1000, 0.4)], height=150))
    (band,) = svg.findall("polygon")
    places = [tuple(map(float, each.split(","))) for each in band.get("points", "").split()]
    assert len(places) == 4
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= 150 for x, y in places)
    assert len(svg.findall("polyline")) == 2
    ElementTree.fromstring(charts.curve(points[:1], []))


def test_large_numbers_have_a_unit() -> None:
    assert [charts.si(each) for each in (12, 1500, 864000, 2.1e6)] == [
        "12",
        "1.5 k",
        "864 k",
        "2.1 M",
    ]


# ---------------------------------------------------------------- the scene


def test_markers_of_bodies_become_shapes_of_their_size_and_colour() -> None:
    scene, bodies = MarkerScene(), make_task("pick_place").bodies()
    scene.take(SceneMarkers(bodies, "base").message(0, {}, ""))
    shapes = {shape.name.split("/")[1]: shape for shape in scene.shapes()}
    assert shapes.keys() == {body.name for body in bodies}
    assert shapes["cube"].kind == "box" and shapes["cube"].size == pytest.approx((0.04,) * 3)
    assert shapes["cube"].colour == (217, 51, 38) and shapes["cube"].opacity == 1.0
    assert shapes["goal"].kind == "cylinder" and shapes["goal"].opacity == pytest.approx(0.8)
    assert shapes["table"].position == pytest.approx((0.5, 0.0, -0.02))


def test_group_paths_become_lines_by_age_coloured_by_advantage() -> None:
    scene, markers = MarkerScene(), PathMarkers("base")
    scene.take(markers.add(group_paths()))
    (newest,) = scene.lines()
    assert newest.points.shape == newest.colours.shape == (6, 2, 3)
    good, bad = newest.colours[0, 0], newest.colours[-1, 0]
    assert good[1] > good[0] and bad[0] > bad[1]
    assert newest.points[0].tolist()[0] == [0.0, 0.0, 0.0]
    scene.take(markers.add(group_paths()))
    assert [each.alpha for each in scene.lines()] == [ALPHA[1], ALPHA[0]]
    assert [each.text for each in scene.texts()] == ["1/2"]


def test_deleted_markers_are_gone() -> None:
    scene = MarkerScene()
    scene.take(MarkerArray(markers=[Marker(ns="a", id=each, type=Marker.CUBE) for each in (1, 2)]))
    scene.take(MarkerArray(markers=[Marker(ns="a", id=1, action=Marker.DELETE)]))
    assert [shape.name for shape in scene.shapes()] == ["a/2"]
    scene.take(MarkerArray(markers=[Marker(action=Marker.DELETEALL)]))
    assert scene.shapes() == []


# ---------------------------------------------------------------- the page


def test_a_taken_port_is_named_with_a_remedy_and_0_takes_the_next() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} .*browser_port:=N"):
            page.check_free("127.0.0.1", port)
    page.check_free("127.0.0.1", port)
    assert page.free_port("127.0.0.1") >= page.FIRST_PORT


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        page.check_free("192.0.2.1", 8080)


def test_without_viser_the_remedy_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    with pytest.raises(MissingExtraError, match="`make setup EXTRAS=browser`") as caught:
        page.open_page("127.0.0.1", 0, "")
    assert "\n" not in str(caught.value)
