"""Recorder: writes a run's topics into an MCAP bag, as `ros2 bag record` does.

Messages are taken as they are on the wire and kept with the times at which they were sent and
received, the QoS that their publishers offer, and their definitions. After each flush, at least
once in a second, the bag is whole, whatever kills the process then. A second node of this process,
`recorder_intake`, holds the subscriptions.

Subscribes:
    what is discovered and chosen by `include`, `exclude`, `images` and `hidden`: reliable and
    transient-local where all publishers of a topic offer it.
Publishes:
    /diagnostics (diagnostic_msgs/DiagnosticArray), 1 Hz: messages, bytes, topics, what was lost.
Parameters: `RecorderConfig`.
Writes: <folder>/<bag>/<bag>_0.mcap and metadata.yaml.

SIGINT or SIGTERM: it records until nobody publishes any more, `linger_s` at most, closes the bag
and says how many messages of each topic it holds and how many were lost. Exit code 0: all that
came is in the bag; 1: some of it is not, the disk refused, or the bag could not be begun.

    ros2 run grpo_ros recorder --ros-args -p folder:=recordings -p "exclude:=['/tf*']"
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError, GrpoRosError
from grpo_ros.nodes.recording.bag_writer import BagWriter
from grpo_ros.nodes.recording.intake import SUFFIX, Arrived, Choice, Intake, Stream
from grpo_ros.nodes.recording.provenance import host_provenance, policy_provenance
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.process import leave, spinning

WRITE_S, FLUSH_S = 0.1, 0.5
SORTED_S = 0.05
"""Messages wait for so long, so that those of other topics that came before them go first."""
MAX_WAITING_BYTES = 256 * 2**20
"""What waits for a slow disk; more is dropped and counted."""
STOP_TIMEOUT_S = 30.0
DIAGNOSTICS_S = 1.0
MEGABYTE = 10**6


@dataclasses.dataclass(frozen=True)
class RecorderConfig:
    """Parameters of the recorder."""

    folder: str = typed.setting("recordings", "Folder that bags are made in")
    bag: str = typed.setting("", "Name of the bag; empty: rosbag2_<date>-<time>")
    include: tuple[str, ...] = typed.setting(
        ("*",), "Patterns of topics that are recorded, by full name"
    )
    exclude: tuple[str, ...] = typed.setting(
        ("",), "Patterns of topics that are not, though included"
    )
    images: bool = typed.setting(False, "Also record images and point clouds")
    hidden: bool = typed.setting(False, "Also record hidden topics, as actions' feedback")
    max_file_mb: int = typed.setting(
        0, "Size after which another file follows; 0: none", unit="MB", minimum=0
    )
    max_file_s: float = typed.setting(
        0.0, "Span after which another file follows; 0: none", unit="s", minimum=0.0
    )
    linger_s: float = typed.setting(
        2.0, "Longest time to go on after a signal, while others publish", unit="s", minimum=0.0
    )
    policy: str = typed.setting("", "ONNX file whose hash, task and robot the bag names")
    about: tuple[str, ...] = typed.setting(("",), "More that the bag names, each key=value")


class Recorder(Node):
    """See the module's docstring.

    Raises:
        GrpoRosError: the bag cannot be begun.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("recorder", **kwargs)
        self.config = config = read_parameters(self, RecorderConfig())
        name = config.bag or datetime.datetime.now().strftime("rosbag2_%Y_%m_%d-%H_%M_%S")
        self.bag = BagWriter(
            Path(config.folder).expanduser().resolve() / name,
            provenance(config),
            config.max_file_mb * MEGABYTE,
            config.max_file_s,
        )
        self.failure: Exception | None = None
        self._waiting: deque[Arrived] = deque()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._numbers: dict[Stream, int] = {}
        self._on_failure: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        self._said_lost = 0
        self._subscriber = Node(
            f"{self.get_name()}{SUFFIX}",
            namespace=self.get_namespace(),
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        choice = Choice(config.include, config.exclude, config.images, config.hidden)
        self.intake = Intake(self._subscriber, choice, self._on_arrived, self.get_logger().warning)
        self._writer = threading.Thread(target=self._run, name="writer", daemon=True)
        self._out = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        wall = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_S, self._publish_diagnostics, clock=wall)

    def begin(self, on_failure: Callable[[], None]) -> None:
        """Record from now on.

        Args:
            on_failure: called once nothing can be recorded any more.
        """
        self._on_failure = on_failure
        self.intake.start()
        self._writer.start()
        self.get_logger().info(f"recording into {self.bag.folder}")

    def linger(self) -> None:
        """Return once nobody publishes any more, after `linger_s` at most."""
        deadline = time.monotonic() + self.config.linger_s
        while time.monotonic() < deadline and self.failure is None:
            if self.intake.is_alone():
                break
            time.sleep(WRITE_S)

    def finish(self) -> int:
        """Write what came, close the bag, say what is in it; return the exit code."""
        is_taken = self.intake.stop(STOP_TIMEOUT_S)
        self._closing.set()
        self._writer.join(STOP_TIMEOUT_S)
        if self.failure is None and self._writer.is_alive():
            self.failure = GrpoRosError(
                f"{self.bag.folder}: the disk did not take what waited in {STOP_TIMEOUT_S:g} s"
            )
        try:
            if self.failure is None:
                self.bag.close(self._outcome())
        except GrpoRosError as problem:
            self.failure = problem
        if not self._writer.is_alive():
            self.bag.abort()
        self._subscriber.destroy_node()
        self.failure = self.failure or self._missing(is_taken)
        if self.failure is not None:
            self.get_logger().fatal(str(self.failure))
        self.get_logger().info(self.summary())
        return 0 if self.failure is None else 1

    def _missing(self, is_taken: bool) -> GrpoRosError | None:
        """Return why the bag lacks messages that came; None where it holds them all."""
        why = []
        if self.intake.failure is not None:
            why.append(f"nothing was taken any more: {self.intake.failure!r}")
        if not is_taken:
            why.append(f"what waited was not taken in {STOP_TIMEOUT_S:g} s")
        if self.intake.dropped:
            why.append(f"{self.intake.dropped} were dropped, since the disk was too slow")
        text = f"{self.bag.folder}: messages are missing: {'; '.join(why)}"
        return GrpoRosError(text) if why else None

    def summary(self) -> str:
        """Return what is in the bag, topic by topic."""
        streams = sorted(self.intake.streams.items())
        lines = [
            f"{self.bag.num_messages} messages of {len(streams)} topics in {self.bag.folder}, "
            f"{self.num_lost} lost"
        ]
        for topic, stream in streams:
            before = f", {b} sent before" if (b := stream.sequences.num_before) else ""
            lines.append(f"  {topic}: {stream.count}, {stream.lost} lost{before}")
        if self.intake.dropped:
            lines.append(f"  dropped, since the disk was too slow: {self.intake.dropped}")
        return "\n".join(lines)

    @property
    def num_lost(self) -> int:
        """Messages that never came, and those that a slow disk left no room for."""
        streams = tuple(self.intake.streams.values())
        return sum(stream.lost for stream in streams) + self.intake.dropped

    def _outcome(self) -> dict[str, str]:
        streams = self.intake.streams.items()
        return {
            "ended": _now(),
            "lost": json.dumps({topic: s.lost for topic, s in streams if s.lost}),
            "dropped": str(self.intake.dropped),
            "sent_before": json.dumps(
                {topic: s.sequences.num_before for topic, s in streams if s.sequences.num_before}
            ),
            "left_out": "; ".join(f"{t}: {why}" for t, why in self.intake.refused.items()),
        }

    # ---------------------------------------------------------------- writing

    def _on_arrived(self, found: list[Arrived]) -> int:
        """Keep what came for the writer; return how much of it finds no room."""
        num_bytes = sum(len(item.data) for item in found)
        with self._lock:
            if self._waiting_bytes + num_bytes > MAX_WAITING_BYTES:
                return len(found)
            self._waiting_bytes += num_bytes
            self._waiting.extend(found)
        return 0

    def _run(self) -> None:
        held: list[Arrived] = []
        flushed_s = time.monotonic()
        try:
            while True:
                is_last = self._closing.wait(WRITE_S)
                held = self._write(held, is_last)
                now_s = time.monotonic()
                if is_last or now_s - flushed_s >= FLUSH_S:
                    self.bag.flush()
                    flushed_s = now_s
                if is_last:
                    return
                if self.intake.failure is not None:
                    raise self.intake.failure
        except Exception as problem:  # noqa: BLE001 - told, and the process ends in order
            self.failure = problem
            self._on_failure()

    def _write(self, held: list[Arrived], is_last: bool) -> list[Arrived]:
        """Write what was held and what is old enough, in order; return what is not."""
        with self._lock:
            found = list(self._waiting)
            self._waiting.clear()
            self._waiting_bytes = 0
        newest_ns = time.time_ns() - round(SORTED_S * messages.NANOSECONDS)
        due = held + [item for item in found if is_last or item.log_ns <= newest_ns]
        for stream in tuple(self.intake.streams.values()):
            if stream not in self._numbers:
                self._numbers[stream] = self.bag.add_topic(stream.about, stream.text)
        for item in sorted(due, key=itemgetter(0)):
            self.bag.write(
                self._numbers[item.stream],
                item.log_ns,
                item.data,
                item.publish_ns,
                item.sequence,
            )
        return [] if is_last else [item for item in found if item.log_ns > newest_ns]

    # ---------------------------------------------------------------- health

    def _publish_diagnostics(self) -> None:
        num_lost = self.num_lost
        level, text = DiagnosticStatus.OK, "recording"
        if num_lost:
            level, text = DiagnosticStatus.WARN, f"{num_lost} messages lost"
        if num_lost > self._said_lost:
            self.get_logger().warning(f"{num_lost} messages lost so far", throttle_duration_sec=10)
            self._said_lost = num_lost
        if self.failure is not None:
            level, text = DiagnosticStatus.ERROR, str(self.failure)
        values = {
            "bag": self.bag.folder,
            "messages": self.bag.num_messages,
            "waiting_bytes": self._waiting_bytes,
            "topics": len(self.intake.streams),
            "lost": num_lost,
        }
        array = DiagnosticArray(status=[messages.status(level, "recorder", text, values)])
        array.header.stamp = self.get_clock().now().to_msg()
        self._out.publish(array)


def provenance(config: RecorderConfig) -> dict[str, str]:
    """Return what the bag says about where it comes from.

    Raises:
        ConfigurationError: `about` is not of the form key=value.
        PolicyFileError: there is no such policy file.
    """
    more = {}
    for text in filter(None, config.about):
        key, is_pair, value = text.partition("=")
        if not is_pair or not key:
            raise ConfigurationError(f"parameter 'about': '{text}'", expected="key=value")
        more[key] = value
    named = policy_provenance(Path(config.policy).expanduser()) if config.policy else {}
    return {
        **host_provenance(),
        **named,
        **more,
        "begun": _now(),
        "recorder": json.dumps(typed.encode(config)),
    }


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def main(args: list[str] | None = None) -> int:
    """Record until a signal comes."""
    with spinning(Recorder, None, args) as process:
        recorder: Recorder = process.node
        recorder.begin(lambda: process.request_stop(1))
        process.wait()
        recorder.linger()
        return recorder.finish()


if __name__ == "__main__":
    leave(main())
