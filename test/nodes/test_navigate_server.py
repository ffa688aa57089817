"""navigate_to_pose: nothing that a client sends, or that fails meanwhile, kills a node."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("nav2_msgs")

from action_msgs.msg import GoalStatus  # noqa: E402
from deploy_helpers import ENVIRONMENT, Client, environment  # noqa: E402
from nav2_msgs.action import NavigateToPose  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402

from grpo_ros.errors import ContractError  # noqa: E402
from grpo_ros.nodes.serving.navigate_server import ACTION, NavigateServer  # noqa: E402
from grpo_ros.nodes.shared.lifecycle import GuardedLifecycleNode  # noqa: E402
from grpo_ros.nodes.shared.process import spinning  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]


def nothing(*_: Any) -> Any:
    return ""


def fail(*_: Any) -> None:
    raise RuntimeError("for a test")


class Site:
    """The action with stand-ins for what it drives, and a client of it."""

    def __init__(self, node: Any) -> None:
        self.node, self.start_problem = node, nothing
        inputs = SimpleNamespace(object_topic="objects/{name}/pose")
        self.control: Any = SimpleNamespace(
            config=SimpleNamespace(goal_body="goal", inputs=inputs),
            before_tick=[],
            after_run=[],
            start=nothing,
            halt=nothing,
        )
        self.server = NavigateServer(
            node,
            self.control,
            SimpleNamespace(),  # type: ignore[arg-type]
            lambda: self.start_problem(),
        )
        self.actions = ActionClient(node, NavigateToPose, ACTION)
        assert self.actions.wait_for_server(10.0)

    def send(self) -> Any:
        """Send a goal; return its handle."""
        return Client.join(self.actions.send_goal_async(NavigateToPose.Goal()))


@pytest.fixture
def site() -> Iterator[Site]:
    with (
        environment(ENVIRONMENT),
        spinning(lambda: GuardedLifecycleNode("navigator"), args=[]) as process,
    ):
        yield Site(process.node)
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


def test_a_cancellation_that_fails_ends_the_goal_and_the_node_lives(site: Site) -> None:
    handle = site.send()
    assert handle.accepted
    site.control.halt = fail
    Client.join(handle.cancel_goal_async())
    status = Client.join(handle.get_result_async()).status
    assert status in (GoalStatus.STATUS_ABORTED, GoalStatus.STATUS_CANCELED)
    assert site.send().accepted
