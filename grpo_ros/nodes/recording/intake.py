"""Intake: raw subscriptions to what is discovered, taken in a thread of its own.

Nothing is deserialised and no executor is in the way: rclpy's take some 100 us for each message,
and its EventsExecutor hands over no time stamps. What the middleware received waits in its
history and keeps the time at which it came, so taking it a few milliseconds later changes nothing.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from grpo_ros.errors import GrpoRosError
from grpo_ros.nodes.recording.bag_metadata import BULKY, TopicMetadata, offered
from grpo_ros.nodes.recording.bags import definition, message_class
from grpo_ros.nodes.recording.sequences import Sequences
from grpo_ros.nodes.shared import qos

POLL_S = 0.005
DISCOVER_S, REEXAMINE_S = 0.1, 2.0
EVERYWHERE = ("/rosout", "/parameter_events")
"""Topics that tools publish too: they do not tell whether a run goes on."""
SUFFIX = "_intake"
"""Of the name of the node that holds the subscriptions, after the recorder's."""
SERVICE_EVENTS = "/_service_event"


class Arrived(NamedTuple):
    """One message: when it came and was sent, in ns since 1970, the stream, its number, CDR."""

    log_ns: int
    publish_ns: int
    stream: Stream
    sequence: int
    data: bytes


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which topics are recorded.

    Args:
        include, exclude: patterns of full names, as in a shell.
        images: whether images and point clouds are.
        hidden: whether topics with a part that begins with `_` are, as those of actions.
    """

    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = ()
    images: bool = False
    hidden: bool = False

    def takes(self, topic: str, type_name: str) -> bool:
        """Return whether a topic is recorded."""
        if not self.images and type_name in BULKY:
            return False
        if topic.endswith(SERVICE_EVENTS) or (not self.hidden and "/_" in topic):
            return False
        is_in = any(fnmatch.fnmatchcase(topic, pattern) for pattern in self.include)
        return is_in and not any(fnmatch.fnmatchcase(topic, p) for p in self.exclude)


@dataclasses.dataclass(eq=False)
class Stream:
    """One topic that is recorded.

    Attributes:
        about: what the bag says about it. text: its definition.
        count: messages that came.
        lost: what the middleware says it lost, or what numbers are missing if that is more.
    """

    about: TopicMetadata
    text: str
    kind: Any
    subscription: Any
    events: Any
    wanted: tuple[ReliabilityPolicy, DurabilityPolicy]
    sequences: Sequences
    publishers: set[bytes]
    count: int = 0
    num_told: int = 0

    @property
    def lost(self) -> int:
        """Messages that never came."""
        return max(self.num_told, self.sequences.num_missing)


class _Always:
    """Stands for a wait set: whether an event is there is told by taking it."""

    def add_event(self, _: Any) -> int:
        return 0

    def is_ready(self, *_: Any) -> bool:
        return True


ALWAYS = _Always()


class Intake:
    """Subscribes to what it discovers and takes what comes, until it is stopped.

    Args:
        node: spun by nobody; its subscriptions are taken from here.
        choice: of topics.
        on_arrived: called in this thread with what came, in no order between topics; returns
            how many of them it could not keep.
        say: logs a line.

    Attributes:
        streams: by topic.
        refused: topic -> why it cannot be recorded.
        dropped: messages that `on_arrived` could not keep.
        failure: what ended the thread before it was stopped.
    """

    def __init__(
        self,
        node: Any,
        choice: Choice,
        on_arrived: Callable[[list[Arrived]], int],
        say: Callable[[str], None],
    ) -> None:
        self.node, self.choice, self.say = node, choice, say
        self.streams: dict[str, Stream] = {}
        self.refused: dict[str, str] = {}
        self.dropped = 0
        self.failure: Exception | None = None
        self._on_arrived = on_arrived
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Begin to discover and to take."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Take what is there and end; return whether that was done in time; idempotent."""
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def is_alone(self) -> bool:
        """Return whether nobody publishes any more what is recorded, but tools and this node."""
        ours = self.node.get_name().removesuffix(SUFFIX)
        return all(
            info.node_name == ours and info.node_namespace == self.node.get_namespace()
            for topic in tuple(self.streams)
            if topic not in EVERYWHERE
            for info in self.node.get_publishers_info_by_topic(topic)
        )

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        discover_s = examine_s = 0.0
        try:
            while not self._stopping.is_set():
                now_s = time.monotonic()
                if now_s >= discover_s:
                    self._discover()
                    discover_s = now_s + DISCOVER_S
                if now_s >= examine_s:
                    self._examine()
                    examine_s = now_s + REEXAMINE_S
                self._take()
                self._stopping.wait(POLL_S)
            self._take()
            self._ask_for_losses()
        except Exception as problem:  # noqa: BLE001 - told to the node, which ends in order
            self.failure = problem

    def _take(self) -> None:
        for stream in tuple(self.streams.values()):
            self._take_of(stream)

    def _take_of(self, stream: Stream) -> None:
        """Hand over what waits, but no more than a history holds at once: others wait too."""
        found: list[Arrived] = []
        note, kind = stream.sequences.note, stream.kind
        handle = stream.subscription.handle
        with handle:
            while len(found) < qos.RECORDED_DEPTH:
                taken = handle.take_message(kind, True)
                if taken is None:
                    break
                data, info = taken
                number = info["publication_sequence_number"] or 0
                if number:
                    note(number)
                sent_ns, came_ns = info["source_timestamp"], info["received_timestamp"]
                came_ns = came_ns or time.time_ns()
                found.append(Arrived(came_ns, sent_ns or came_ns, stream, number, data))
        if found:
            stream.count += len(found)
            self.dropped += self._on_arrived(found)

    def _ask_for_losses(self) -> None:
        for stream in self.streams.values():
            if stream.events is not None and stream.events.is_ready(ALWAYS):
                told = stream.events.take_data()
                stream.num_told += told.total_count_change if told else 0

    # ---------------------------------------------------------------- discovery

    def _discover(self) -> None:
        for topic, types in self.node.get_topic_names_and_types():
            if topic in self.streams or topic in self.refused:
                continue
            if not self.choice.takes(topic, types[0]) or not self.node.count_publishers(topic):
                continue
            try:
                if len(types) > 1:
                    raise GrpoRosError(f"several types: {', '.join(types)}")
                self._subscribe(topic, types[0])
            except GrpoRosError as problem:
                self.refused[topic] = str(problem)
                self.say(f"'{topic}' is not recorded: {problem}")
            self._take()  # the first of a kind takes a while: do not let the others overflow

    def _subscribe(self, topic: str, type_name: str) -> None:
        infos = self.node.get_publishers_info_by_topic(topic)
        if not infos:
            return
        text, digest = definition(type_name)
        for theirs in {_digest(info) for info in infos} - {digest, ""}:
            raise GrpoRosError(
                f"its publisher's {type_name} is another one than the one installed here",
                expected=f"the definition with hash {digest}",
                remedy=f"install the version with hash {theirs}",
            )
        profiles = tuple(dict.fromkeys(offered(info.qos_profile) for info in infos))
        kind = message_class(type_name)
        publishers = {bytes(info.endpoint_gid) for info in infos}
        stream = Stream(
            TopicMetadata(topic, type_name, digest, profiles),
            text,
            kind,
            None,
            None,
            _wanted(infos),
            Sequences(lambda: self._known_publishers(topic, publishers)),
            publishers,
        )
        self._open(stream)
        self.streams[topic] = stream

    def _open(self, stream: Stream) -> None:
        told = SubscriptionEventCallbacks(message_lost=lambda _: None, use_default_callbacks=False)
        made = self.node.create_subscription(
            stream.kind,
            stream.about.name,
            lambda _: None,
            _profile(stream),
            raw=True,
            event_callbacks=told,
        )
        stream.subscription = made
        stream.events = next(iter(made.event_handlers), None)
        if stream.events is not None:
            stream.events.add_to_wait_set(ALWAYS)

    def _examine(self) -> None:
        """Ask for less where a publisher came that offers less, and ask for losses."""
        for topic, stream in tuple(self.streams.items()):
            infos = self.node.get_publishers_info_by_topic(topic)
            stream.publishers |= {bytes(info.endpoint_gid) for info in infos}
            if not infos:
                continue
            wanted = (
                max(stream.wanted[0], _wanted(infos)[0]),
                max(stream.wanted[1], _wanted(infos)[1]),
            )
            if wanted != stream.wanted:
                self.say(f"'{topic}': a publisher offers less than others; {wanted} from now on")
                self._take_of(stream)
                self.node.destroy_subscription(stream.subscription)
                stream.wanted = wanted
                self._open(stream)
        self._ask_for_losses()

    def _known_publishers(self, topic: str, known: set[bytes]) -> int:
        infos = self.node.get_publishers_info_by_topic(topic)
        known |= {bytes(info.endpoint_gid) for info in infos}
        return len(known)


def _wanted(infos: Sequence[Any]) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
    """Return the most that every publisher offers."""
    profiles = [info.qos_profile for info in infos]
    is_reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
    is_latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
    return (
        ReliabilityPolicy.RELIABLE if is_reliable else ReliabilityPolicy.BEST_EFFORT,
        DurabilityPolicy.TRANSIENT_LOCAL if is_latched else DurabilityPolicy.VOLATILE,
    )


def _profile(stream: Stream) -> QoSProfile:
    depth = qos.RECORDED_BULKY_DEPTH if stream.about.type_name in BULKY else qos.RECORDED_DEPTH
    return qos.recorded(*stream.wanted, depth)


def _digest(info: Any) -> str:
    """Return the type hash that a publisher offers; empty where it offers none."""
    found = str(info.topic_type_hash)
    return found if found.startswith("RIHS01_") else ""
