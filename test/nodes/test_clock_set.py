"""A wall clock that somebody sets in mid-run: the robot is brought to rest from where it is."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

pytest.importorskip("rclpy")
sys.path.append(str(Path(__file__).resolve().parents[1] / "deployment"))

from deployment_fakes import (  # noqa: E402
    ARM,
    FINGER,
    ROBOT,
    AddingController,
    home,
    make_contract,
)
from rclpy.clock import ClockType  # noqa: E402

from grpo_ros.deployment.policy_runner import PolicyRunner  # noqa: E402
from grpo_ros.nodes.serving import clock_watch, command_stream, run_control  # noqa: E402
from grpo_ros.nodes.serving.command_stream import Stream  # noqa: E402
from grpo_ros.nodes.serving.run_control import ERROR, RunControl  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]
MS = 1_000_000
NAMES = (*ARM, FINGER)
TICK_MS, SAMPLE_MS = 50, 10


def push(obs: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return a chunk that turns the first joint at 0.4 rad/s."""
    chunk = np.zeros((1, 8, 8), dtype=np.float32)
    chunk[0, :, 0] = 1.0
    return chunk


@dataclasses.dataclass
class Site:
    """A policy server's control and stream, in a time of the test's own.

    Attributes:
        steady_ns: the clock that nobody sets. offset_ns: the node's clock, less that.
        sent: positions of the first joint, one per sample. shown: statuses.
    """

    steady_ns: int = 5_000 * MS
    offset_ns: int = 1_700_000_000_000 * MS
    sent: list[float] = dataclasses.field(default_factory=list)
    shown: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.black_box, self.timers = MagicMock(), dict[Any, Any]()
        contract = make_contract(chunk_size=8, num_executed=4, horizon=200)
        self.runner = PolicyRunner(contract, push, ROBOT, AddingController())
        self.stream = Stream(self, "commands", "position_stream", 1e3 / SAMPLE_MS)
        config: Any = SimpleNamespace(lock_step=False, dry_run=False, judge=False)
        self.control = RunControl(self, config, self.runner, self.stream, MagicMock(), MagicMock())
        self.control.begin_ticks()

    # what is asked of a node

    def get_clock(self) -> Any:
        now_ns = self.steady_ns + self.offset_ns
        return SimpleNamespace(
            now=lambda: SimpleNamespace(nanoseconds=now_ns), ros_time_is_active=False
        )

    def resolve_topic_name(self, name: str) -> str:
        return name

    def create_lifecycle_publisher(self, *_: Any) -> Any:
        return SimpleNamespace(publish=lambda message: self.sent.append(message.data[0]))

    def create_timer(self, _: float, callback: Any, clock: Any = None) -> Any:
        self.timers[callback] = clock
        return SimpleNamespace(time_until_next_call=lambda: TICK_MS * MS)

    def get_logger(self) -> Any:
        return MagicMock()

    def count_publishers(self, _: str) -> int:
        return 0

    def forget_inputs(self) -> None:
        self.runner.buffer.clear()

    def show(self, *what: Any, **_: Any) -> None:
        self.shown.append(what)

    def report(self, *_: Any) -> None:
        pass

    def show_chunk(self, _: Any) -> None:
        pass

    # what the test does

    def observe(self) -> None:
        """Give it the robot's state now, which is where it was commanded to be."""
        now_ns, position = self.steady_ns + self.offset_ns, home()
        position[0] = self.sent[-1] if self.sent else position[0]
        buffer = self.runner.buffer
        buffer.put_joint_state(now_ns, NAMES, position, np.zeros(8))
        buffer.put_pose(now_ns, "cube", "base", (0.5, 0.0, 0.02), (0.0, 0.0, 0.0, 1.0))

    def go_on(self, ms: int) -> list[float]:
        """Let time pass; return a sample for each of its steps."""
        found = []
        for _ in range(0, ms, SAMPLE_MS):
            if self.steady_ns % (TICK_MS * MS) == 0:
                self.observe()
                self.control.on_timer()
            self.steady_ns += SAMPLE_MS * MS
            self.stream._tick()
            found.append(self.sent[-1])
        return found


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    clock = SimpleNamespace(
        monotonic=lambda: site.steady_ns / 1e9, monotonic_ns=lambda: site.steady_ns
    )
    for module in (run_control, clock_watch, command_stream):
        monkeypatch.setattr(module, "time", clock)
    site.control.start()
    yield site


def assert_smooth(path: list[float]) -> None:
    """Check that the first joint moves within its limits, and rests in the end."""
    dt, limit = SAMPLE_MS * 1e-3, ROBOT.limits[0]
    assert np.abs(np.diff(path)).max() <= limit.velocity * dt
    assert np.abs(np.diff(path, 2)).max() <= limit.acceleration * dt**2 * (1.0 + 1e-6)
    assert path[-1] == path[-5]


@pytest.mark.parametrize("set_ms", [-5_000, -300, -30, 25, 300, 60_000])
@pytest.mark.parametrize("after_ms", [500, 520])
def test_a_clock_that_is_set_ends_the_run_with_a_motion_to_rest(
    site: Site, set_ms: int, after_ms: int
) -> None:
    """Regression: forward, it was taken for ticks that were missed, a step of 0.11 rad."""
    path = site.go_on(after_ms)
    assert site.control.is_running and path[-1] - path[-2] > 1e-3
    site.offset_ns += set_ms * MS
    path += site.go_on(1_000)
    assert_smooth(path)
    assert site.runner.phase == "stopped"
    assert site.runner.reason == f"the clock was set by {set_ms / 1e3:+.3f} s"
    assert any(what[0] == ERROR and what[1] == site.runner.reason for what in site.shown)
    site.control.start()
    again = site.go_on(500)
    assert site.control.is_running and again[-1] - again[0] > 0.05


@pytest.mark.parametrize("set_ms", [-300, 30, 300, 60_000])
def test_a_clock_that_is_set_within_a_tick_changes_nothing_in_what_is_sent(
    site: Site, set_ms: int
) -> None:
    """Regression: forward, it was taken for lateness, and a stream leapt along its curve."""
    path = site.go_on(500)

    def set_clock(_: int) -> None:
        site.offset_ns += set_ms * MS
        site.control.before_tick.clear()

    site.control.before_tick.append(set_clock)
    path += site.go_on(50)
    assert site.control.is_running
    path += site.go_on(1_000)
    assert_smooth(path)
    assert site.runner.reason == f"the clock was set by {set_ms / 1e3:+.3f} s"


def test_a_stop_after_the_clock_was_set_brakes_from_where_the_arm_is(site: Site) -> None:
    """Before the tick that would have seen it."""
    path = site.go_on(530)
    site.offset_ns += 300 * MS
    site.control.halt("stopped on request")
    path += site.go_on(1_000)
    assert_smooth(path)
    assert not site.control.is_running


def test_a_clock_that_is_disciplined_and_ticks_that_come_late_end_nothing(site: Site) -> None:
    site.go_on(300)
    for _ in range(12):
        site.offset_ns += 2 * MS
        site.go_on(50)
    site.steady_ns += 140 * MS
    site.go_on(30)
    assert site.control.is_running


def test_ticks_come_from_a_clock_that_nobody_sets(site: Site) -> None:
    """Regression: set back by 60 s, a wall clock's timer was silent for as long."""
    assert site.timers[site.control.on_timer].clock_type == ClockType.STEADY_TIME


def test_simulated_time_drives_the_ticks_at_its_own_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulated = SimpleNamespace(ros_time_is_active=True)
    monkeypatch.setattr(Site, "get_clock", lambda _: simulated)
    site = Site()
    assert site.timers[site.control.on_timer] is None


def test_of_readings_of_a_clock_the_one_that_took_least_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the readings of two clocks another process may have run."""
    times = iter([0, 40, 100, 102, 200, 230])
    monkeypatch.setattr(clock_watch, "time", SimpleNamespace(monotonic_ns=lambda: next(times)))
    readings = iter([1_039, 1_101, 1_201])
    clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=next(readings)))
    assert clock_watch.clock_offset_ns(clock) == 1_000
