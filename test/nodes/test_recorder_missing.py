"""The recorder says so, and ends with 1, where its bag lacks messages that came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from bag_readers import agreed  # noqa: E402
from deploy_helpers import DEADLINE_S, ENVIRONMENT, environment  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import JointState  # noqa: E402

from grpo_ros.nodes import recorder as recorder_module  # noqa: E402
from grpo_ros.nodes.recorder import Recorder  # noqa: E402
from grpo_ros.nodes.shared import qos  # noqa: E402
from grpo_ros.nodes.shared.process import spinning  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
Spoil = Callable[[pytest.MonkeyPatch, Recorder], None]


def is_whole(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Leave all as it is."""


def has_a_slow_disk(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Leave no room for what comes from now on."""
    patch.setattr(recorder_module, "MAX_WAITING_BYTES", 0)


def fails_at_its_end(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Let the last look at what came raise."""
    intake = recorder.intake
    take = intake._take

    def take_or_raise() -> None:
        if intake._stopping.is_set():
            raise RuntimeError("as nothing should")
        take()

    patch.setattr(intake, "_take", take_or_raise)


def does_not_end(patch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """Let the last look at what came take longer than is waited for."""
    patch.setattr(recorder_module, "STOP_TIMEOUT_S", 1.0)
    intake, wait_s = recorder.intake, 3.0
    take = intake._take

    def take_late() -> None:
        if intake._stopping.is_set():
            threading.Event().wait(wait_s)
        else:
            take()

    patch.setattr(intake, "_take", take_late)


@pytest.mark.parametrize(
    ("spoil", "exit_code", "said"),
    [
        (is_whole, 0, "None"),
        (has_a_slow_disk, 1, "messages are missing: 3 were dropped, since the disk was too slow"),
        (fails_at_its_end, 1, "messages are missing: nothing was taken any more: RuntimeError"),
        (does_not_end, 1, "messages are missing: what waited was not taken in 1 s"),
    ],
)
def test_a_bag_that_lacks_what_came_ends_with_1_and_is_closed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Spoil,
    exit_code: int,
    said: str,
) -> None:
    values = {"folder": str(tmp_path), "bag": "bag", "include": ["/numbered"]}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    ended: list[Any] = []
    with (
        environment(ENVIRONMENT),
        spinning(lambda: Recorder(parameter_overrides=overrides), args=[]) as process,
    ):
        recorder = process.node
        publisher = recorder.create_publisher(JointState, "/numbered", qos.STATE)
        recorder.begin(lambda: ended.append("failed"))
        publish(publisher, recorder, 1)
        until(lambda: recorder.bag.num_messages == 1)
        spoil(monkeypatch, recorder)
        publish(publisher, recorder, 3)
        assert recorder.finish() == exit_code
        assert said in str(recorder.failure)
    assert not ended
    assert len(agreed(tmp_path / "bag")) == (1 if spoil is has_a_slow_disk else 4)


def publish(publisher: Any, recorder: Recorder, number: int) -> None:
    """Publish messages and wait until they were taken."""
    until(lambda: publisher.get_subscription_count() == 1)
    before = taken(recorder)
    for _ in range(number):
        publisher.publish(JointState())
    until(lambda: taken(recorder) == before + number)


def taken(recorder: Recorder) -> int:
    """Return how many messages came so far."""
    return sum(stream.count for stream in tuple(recorder.intake.streams.values()))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
