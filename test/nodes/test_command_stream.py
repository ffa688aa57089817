"""A stream of commands ends at rest, whatever the clock does."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("rclpy")

from grpo_ros.deployment.answers import Hold, Motion  # noqa: E402
from grpo_ros.deployment.safety.curve import Curve  # noqa: E402
from grpo_ros.nodes.serving import clock_watch, command_stream, run_control  # noqa: E402
from grpo_ros.nodes.serving.clock_watch import CLOCK_STANDS_S  # noqa: E402
from grpo_ros.nodes.serving.command_stream import Stream  # noqa: E402
from grpo_ros.nodes.serving.run_control import RunControl  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
SECOND = 1_000_000_000
BRAKING = Curve(np.array([0.0, 0.2]), np.array([[0.0], [0.1]]), np.array([[1.0], [0.0]]))
"""From 1 m/s to rest within 0.2 s."""
LONG = Curve(np.array([0.0, 60.0]), np.array([[0.0], [30.0]]), np.array([[1.0], [0.0]]))


class Clocked:
    """A node whose clock the test sets, and what it publishes."""

    def __init__(self, is_simulated: bool) -> None:
        self.now_ns, self.is_simulated = 100 * SECOND, is_simulated
        self.sent: list[float] = []
        self.tick: Any = None

    def get_clock(self) -> Any:
        now = SimpleNamespace(nanoseconds=self.now_ns)
        return SimpleNamespace(now=lambda: now, ros_time_is_active=self.is_simulated)

    def resolve_topic_name(self, name: str) -> str:
        return name

    def create_lifecycle_publisher(self, *_: Any) -> Any:
        return SimpleNamespace(publish=lambda message: self.sent.append(message.data[0]))

    def create_timer(self, _: float, callback: Any, **__: Any) -> None:
        self.tick = callback

    def streams(self, kind: str, curve: Curve) -> Stream:
        """Return a stream that follows a motion from now on."""
        stream = Stream(self, "commands", kind, 100.0)
        self.send(stream, curve)
        return stream

    def send(self, stream: Stream, curve: Curve) -> None:
        """Let a stream follow a motion from now on."""
        motion = Motion(1, 1, self.now_ns, ("joint",), curve.positions[1:], curve)
        stream.send(motion, command_stream.time.monotonic())


@pytest.mark.parametrize("is_simulated", [True, False])
def test_a_stop_brakes_to_rest_while_the_clock_stands_still(is_simulated: bool) -> None:
    """Simulated time comes in the thread that brakes, so that none comes."""
    node = Clocked(is_simulated)
    node.streams("velocity_stream", BRAKING).finish()
    assert node.sent[-1] == 0.0
    assert len(node.sent) > 5 and (np.diff(node.sent) <= 0.0).all()


def test_a_stop_that_takes_too_long_ends_at_rest_where_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grpo_ros.nodes.serving.command_stream.LONGEST_STOP_S", 0.1)
    velocities, positions = Clocked(True), Clocked(True)
    velocities.streams("velocity_stream", LONG).finish()
    assert velocities.sent[-2] > 0.9 and velocities.sent[-1] == 0.0
    positions.streams("position_stream", LONG).finish()
    assert 0.0 < positions.sent[-1] == positions.sent[-2] < 0.5


def test_a_simulated_clock_that_jumps_back_ends_a_motion_at_rest() -> None:
    node = Clocked(True)
    node.streams("velocity_stream", LONG)
    node.now_ns += SECOND
    node.tick()
    assert node.sent[-1] > 0.9
    node.now_ns -= 50 * SECOND
    node.tick()
    assert node.sent[-1] == 0.0
    number = len(node.sent)
    node.tick()
    assert len(node.sent) == number


@pytest.mark.parametrize("kind", ["velocity_stream", "position_stream"])
def test_a_stream_rests_while_simulated_time_stands_still_and_goes_on_with_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the last velocity was sent for ever, after a stop too."""
    steady = SimpleNamespace(now_s=50.0)
    for module in (clock_watch, command_stream):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: steady.now_s))
    node = Clocked(True)
    stream = node.streams(kind, LONG)
    node.now_ns += SECOND // 10
    node.tick()
    moving, rest = node.sent[-1], 0.0 if kind == "velocity_stream" else node.sent[-1]
    steady.now_s += CLOCK_STANDS_S - 0.01
    node.tick()
    assert node.sent[-1] == moving
    steady.now_s += 0.02
    node.tick()
    assert node.sent[-1] == rest
    node.now_ns += SECOND // 100
    node.tick()
    assert node.sent[-1] == pytest.approx(moving, abs=0.02) and node.sent[-1] != 0.0
    rest = 0.0 if kind == "velocity_stream" else node.sent[-1]
    steady.now_s += 60.0
    node.tick()
    node.send(stream, BRAKING)
    assert node.sent[-2:] == [rest, rest]
    number = len(node.sent)
    stream.finish()
    node.now_ns += SECOND // 100
    node.tick()
    assert len(node.sent) == number


@pytest.mark.parametrize("jump_s", [-10, 10])
def test_a_wall_clock_that_is_set_changes_nothing_in_a_motion(jump_s: int) -> None:
    node = Clocked(False)
    node.streams("position_stream", LONG)
    node.now_ns += jump_s * SECOND
    time.sleep(0.05)
    node.tick()
    assert 0.04 < node.sent[-1] < 1.0


def test_a_motion_that_ended_is_not_ended_again() -> None:
    node = Clocked(True)
    stream = node.streams("velocity_stream", BRAKING)
    node.now_ns += SECOND
    node.tick()
    number = len(node.sent)
    stream.stand()
    stream.finish()
    assert len(node.sent) == number and node.sent[-1] == 0.0


def test_a_run_ends_at_the_first_tick_of_a_clock_that_jumped_back() -> None:
    """To the arm's course, each such tick is early."""
    node, runner, output = MagicMock(), MagicMock(), MagicMock()
    node.get_clock().now().nanoseconds = 100 * SECOND
    node.count_publishers.return_value = 1
    runner.period_s, runner.phase = 0.05, "running"
    runner.is_early.return_value = False
    runner.tick.return_value = Hold(1, 1, 0, (), np.zeros((0, 1)), kind="holding")
    control = RunControl(
        node,
        SimpleNamespace(lock_step=False, dry_run=False, judge=False),  # type: ignore[arg-type]
        runner,
        output,
        MagicMock(),
        MagicMock(),
    )
    ended: list[str] = []
    control.after_run.append(ended.append)
    runner.jump_back.side_effect = lambda: setattr(runner, "phase", "stopped")
    control.health = MagicMock()
    control.on_timer()
    assert control.is_running and not output.stand.called
    runner.is_early.return_value = True
    node.get_clock().now().nanoseconds = 90 * SECOND
    control.on_timer()
    assert not control.is_running and len(ended) == 1
    output.stand.assert_called_once()
    assert any(run_control.ERROR in call.args for call in node.show.call_args_list)
