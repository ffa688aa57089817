"""navigate_to_pose: nothing that a client sends, or that fails meanwhile, kills a node."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("nav2_msgs")

from action_msgs.msg import GoalStatus  # noqa: E402
from deploy_helpers import (  # noqa: E402
    DEADLINE_S,
    ENVIRONMENT,
    SETTLE_S,
    Client,
    environment,
)
from nav2_msgs.action import NavigateToPose  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402

from grpo_ros.controllers import make_controller  # noqa: E402
from grpo_ros.deployment.policy_runner import PolicyRunner  # noqa: E402
from grpo_ros.errors import ContractError  # noqa: E402
from grpo_ros.nodes.serving import navigate_server  # noqa: E402
from grpo_ros.nodes.serving.navigate_server import ACTION, NavigateServer  # noqa: E402
from grpo_ros.nodes.shared.lifecycle import GuardedLifecycleNode  # noqa: E402
from grpo_ros.nodes.shared.process import spinning  # noqa: E402
from grpo_ros.tasks.navigate import Navigate, NavigateConfig  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
TASK = Navigate(NavigateConfig())
ROBOT, CONTRACT = TASK.robot, TASK.contract()


def nothing(*_: Any) -> Any:
    return ""


def fail(*_: Any) -> None:
    raise RuntimeError("for a test")


class Site:
    """The action with stand-ins for what it drives, and a client of it."""

    def __init__(self, process: Any) -> None:
        self.process, self.node, self.start_problem = process, process.node, nothing
        node = process.node
        inputs = SimpleNamespace(object_topic="objects/{name}/pose", transform_poses=True)
        self.runner = PolicyRunner(CONTRACT, nothing, ROBOT, make_controller(CONTRACT, ROBOT))
        self.inputs = SimpleNamespace(put_pose=self.put_pose)
        self.control: Any = SimpleNamespace(
            config=SimpleNamespace(goal_body="goal", inputs=inputs),
            runner=self.runner,
            before_tick=[],
            after_run=[],
            start=nothing,
            halt=nothing,
        )
        self.server = NavigateServer(
            node,
            self.control,
            self.inputs,  # type: ignore[arg-type]
            lambda: self.start_problem(),
        )
        self.actions = ActionClient(node, NavigateToPose, ACTION)
        assert self.actions.wait_for_server(10.0)

    def put_pose(self, body: str, message: Any) -> None:
        """Refuse a goal's pose as where no transform leads from its frame."""
        frame = message.header.frame_id
        self.runner.buffer.refuse("frame", f"pose of '{body}': no transform from '{frame}'")

    def send(self, frame: str = ROBOT.base_frame, **quaternion: float) -> Any:
        """Send a goal; return its handle."""
        goal = NavigateToPose.Goal()
        goal.pose.header.frame_id = frame
        for name, value in quaternion.items():
            setattr(goal.pose.pose.orientation, name, value)
        return Client.join(self.actions.send_goal_async(goal))


@pytest.fixture
def site() -> Iterator[Site]:
    with (
        environment(ENVIRONMENT),
        spinning(lambda: GuardedLifecycleNode("navigator"), args=[]) as process,
    ):
        yield Site(process)
        assert not process.is_lost


def test_what_keeps_a_run_from_beginning_refuses_a_goal_however_it_is_said(site: Site) -> None:
    def differ() -> str:
        raise ContractError("robot_description differs")

    for problem in (lambda: "already running", differ, fail):
        site.start_problem = problem
        assert not site.send().accepted
    site.start_problem = nothing
    assert site.send().accepted


def test_a_run_that_cannot_begin_ends_its_goal_with_the_reason(site: Site) -> None:
    site.control.start = fail
    answer = Client.join(site.send().get_result_async())
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "for a test" in answer.result.error_msg
    site.control.start = nothing
    assert site.send().accepted


def test_a_node_that_is_shut_down_in_one_callback_tells_how_its_goal_ended(site: Site) -> None:
    """Regression: the server was gone before the result was sent, and its client waited on."""
    result = site.send().get_result_async()
    time.sleep(SETTLE_S)  # until the server knows who asks for it

    def shut_down() -> None:
        for call in site.control.after_run:
            call("the node goes down")
        site.server.destroy()

    site.process.call(shut_down)
    answer = Client.join(result)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert answer.result.error_msg == "the node goes down"
    deadline = time.monotonic() + DEADLINE_S
    while site.actions.server_is_ready() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not site.actions.server_is_ready()


def test_a_cancellation_that_fails_ends_the_goal_and_the_node_lives(site: Site) -> None:
    handle = site.send()
    assert handle.accepted
    site.control.halt = fail
    Client.join(handle.cancel_goal_async())
    status = Client.join(handle.get_result_async()).status
    assert status in (GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED)
    assert site.send().accepted


def test_a_goal_that_could_never_be_taken_is_refused(site: Site) -> None:
    """Regression: it was accepted, refused as an input at each tick, and never ended."""
    for frame, quaternion in (
        ("", {}),
        (ROBOT.base_frame, {"w": 0.0}),
        (ROBOT.base_frame, {"w": 1.0, "z": 0.5}),
        (ROBOT.base_frame, {"w": float("nan")}),
    ):
        assert not site.send(frame, **quaternion).accepted, (frame, quaternion)
    site.control.config.inputs.transform_poses = False
    assert not site.send("map").accepted
    site.control.config.inputs.transform_poses = True
    assert site.send("map").accepted


def test_a_goal_whose_run_cannot_begin_is_given_up_with_the_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: without a transform from its frame, its client waited for ever."""

    def halt(reason: str, phase: str) -> None:
        assert phase == "stopped"
        for call in site.control.after_run:
            call(reason)

    site.control.halt = halt
    (on_tick,) = site.control.before_tick
    result = site.send("map").get_result_async()
    on_tick(1_000_000_000)
    assert not result.done()
    monkeypatch.setattr(navigate_server, "BEGIN_S", 0.0)
    on_tick(1_100_000_000)
    answer = Client.join(result)
    assert answer.status == GoalStatus.STATUS_ABORTED
    assert "no pose of 'goal'" in answer.result.error_msg
    assert "no transform from 'map'" in answer.result.error_msg
    assert site.send().accepted
