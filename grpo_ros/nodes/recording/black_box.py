"""Black box: what a policy server received and sent in its last seconds, kept for the moment.

While nothing happens it costs one append per message. When something does, a thread of its own
writes a bag that `ros2 bag`, Foxglove and `grpo-ros replay-bag` read; see `docs/how-to`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import queue
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.nodes.inputs.transform_tree import TF_STATIC
from grpo_ros.nodes.recording.bag_metadata import BULKY, offered
from grpo_ros.nodes.recording.bag_writer import TEMPORARY, write_bag
from grpo_ros.nodes.recording.bags import Recorded, message_class
from grpo_ros.nodes.recording.encoder import encoder
from grpo_ros.nodes.recording.provenance import (
    contract_provenance,
    file_provenance,
    host_provenance,
)
from grpo_ros.nodes.serving.policy_config import PolicyServerConfig
from grpo_ros.nodes.shared import messages

Kept = tuple[int, str, str, Any]
"""Arrival in ns of a clock that nobody sets, topic, type, and the message or what makes it."""
TIME, STATUS = "builtin_interfaces/msg/Time", "diagnostic_msgs/msg/DiagnosticStatus"
TICKS, EVENTS = "ticks", "events"
"""Topics below the node's name that exist in bags only; see `tick` and `event`."""
MAX_BULKY_BYTES = 256 * 2**20
"""Images are kept up to so many bytes, then the oldest of them go before their time."""
MAX_MESSAGES = 200_000
MAX_STATIC = 100
MAX_BAGS = 20
LEAST_GAP_S = 5.0
"""Between two bags of the same kind."""
AFTER_S = 0.5
"""A bag goes on for so long after what it was written for."""
MAX_WAITING = 4
CLOSE_S = 3.0
STALE_S = 3600.0
NAME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}_\w+")


@dataclasses.dataclass(frozen=True)
class Request:
    """A bag that is to be written: why, and when that was on the steady clock."""

    kind: str
    reason: str
    at_ns: int


class BlackBox:
    """Keeps references to the last messages, and writes them down on request.

    It never raises into the node: what it cannot do is logged, a full disk once.

    Args:
        node: names it, logs, and knows who publishes with which QoS.
        seconds: that are kept; 0: nothing is kept and nothing is written.
        folder: where bags go; of those that are there the newest `MAX_BAGS` stay.
        about: written into every bag; see `provenance`.
    """

    def __init__(
        self, node: Any, seconds: float, folder: Path, about: Mapping[str, str] | None = None
    ) -> None:
        self.node, self.folder, self.about = node, folder, dict(about or {})
        self.is_on = seconds > 0.0
        self.num_written = self.num_skipped = self.num_failed = 0
        self._root = f"{node.get_namespace().rstrip('/')}/{node.get_name()}"
        self._ticks, self._events = f"{self._root}/{TICKS}", f"{self._root}/{EVENTS}"
        self._moments = (self._ticks, self._events)
        self._window_ns = round(seconds * messages.NANOSECONDS)
        self._kept: deque[Kept] = deque()
        self._bulky: deque[Kept] = deque()
        self._bulky_bytes = 0
        self._before: dict[str, Kept] = {}
        self._static: deque[Kept] = deque(maxlen=MAX_STATIC)
        self._asked_s: dict[str, float] = {}
        self._requests: queue.Queue[Request | None] = queue.Queue(MAX_WAITING)
        self._closing = threading.Event()
        self._has_failed = False
        self._thread: threading.Thread | None = None
        if self.is_on:
            for type_name in (TIME, STATUS):  # what is loaded for them is loaded now
                encoder(type_name)(message_class(type_name)())
            self._thread = threading.Thread(target=self._run, name="black_box", daemon=True)
            self._thread.start()

    # ---------------------------------------------------------------- what is kept

    def note(self, topic: str, type_name: str, message: Any) -> None:
        """Keep a message, which nobody may change afterwards.

        Args:
            topic: full name. type_name: pkg/msg/Type.
            message: or a callable that makes it once it is written.
        """
        if not self.is_on:
            return
        now_ns = time.monotonic_ns()
        if type_name in BULKY:
            self._note_bulky((now_ns, topic, type_name, message))
            return
        kept, oldest_ns = self._kept, now_ns - self._window_ns
        kept.append((now_ns, topic, type_name, message))
        while kept[0][0] < oldest_ns or len(kept) > MAX_MESSAGES:
            gone = kept.popleft()
            if gone[1] == TF_STATIC:
                self._static.append(gone)
            elif gone[1] not in self._moments:
                self._before[gone[1]] = gone

    def _note_bulky(self, entry: Kept) -> None:
        bulky, oldest_ns = self._bulky, entry[0] - self._window_ns
        bulky.append(entry)
        self._bulky_bytes += len(entry[3].data)
        while bulky and (bulky[0][0] < oldest_ns or self._bulky_bytes > MAX_BULKY_BYTES):
            self._bulky_bytes -= len(bulky.popleft()[3].data)

    def tick(self, now_ns: int) -> None:
        """Keep the time of a tick, ns, after its inputs and before its command."""
        self.note(self._ticks, TIME, functools.partial(messages.to_time, now_ns))

    def event(self, what: str, **values: object) -> None:
        """Keep an event: "start" with `not_before_ns`, `run` and maybe `tick_ns`, or "stop"."""
        make = functools.partial(messages.status, b"\0", self._root, what, values)
        self.note(self._events, STATUS, make)

    # ---------------------------------------------------------------- writing

    def dump(self, kind: str, reason: str = "") -> bool:
        """Ask for a bag; return whether one will be written."""
        if not self.is_on or self._closing.is_set():
            return False
        now_s = time.monotonic()
        if now_s - self._asked_s.get(kind, -LEAST_GAP_S) < LEAST_GAP_S:
            self.num_skipped += 1
            return False
        try:
            self._requests.put_nowait(Request(kind, reason, time.monotonic_ns()))
        except queue.Full:
            self.num_skipped += 1
            return False
        self._asked_s[kind] = now_s
        return True

    def close(self) -> None:
        """Write what was asked for, as far as that takes no longer than `CLOSE_S`."""
        self._closing.set()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._requests.put_nowait(None)
        thread.join(CLOSE_S)
        self.is_on = False

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=CLOSE_S)
            except queue.Empty:
                request = None
            if request is None:
                if self._closing.is_set():
                    return
                continue
            age_s = (time.monotonic_ns() - request.at_ns) / messages.NANOSECONDS
            self._closing.wait(max(0.0, AFTER_S - age_s))
            try:
                self._write(request)
            except Exception as problem:  # noqa: BLE001 - no failure here may harm the server
                self._complain(problem)

    def _write(self, request: Request) -> None:
        entries = self._entries()
        topics = {topic for _, topic, *_ in entries}
        qos = {topic: self._profiles(topic) for topic in topics}
        offset_ns = _offset_ns()
        recorded = (
            Recorded(topic, type_name, arrival_ns + offset_ns, message)
            for arrival_ns, topic, type_name, message in entries
        )
        now = datetime.datetime.now()
        stamp = now.strftime("%Y-%m-%d_%H-%M-%S-%f")
        target = self.folder / f"{stamp}_{re.sub(r'\W', '_', request.kind) or 'unnamed'}"
        about = {
            **self.about,
            "node": self._root,
            "kind": request.kind,
            "reason": request.reason,
            "at_ns": str(request.at_ns + offset_ns),
            "written": now.astimezone().isoformat(timespec="milliseconds"),
        }
        number, problems = write_bag(
            target, recorded, qos, about, lambda: not self._closing.is_set()
        )
        self.num_written += 1
        self._has_failed = False
        self._prune()
        left_out = f"; left out: {'; '.join(problems)}" if problems else ""
        self.node.get_logger().info(f"black box: {number} messages in {target}{left_out}")

    def _entries(self) -> list[Kept]:
        """Return what is kept, in order; what held before the window comes first."""
        kept = _copied(self._kept)
        window = sorted([*kept, *_copied(self._bulky)], key=lambda entry: entry[0])
        before = [*_copied(self._static), *dict(self._before).values()]
        first_ns = window[0][0] if window else 0
        opening = [
            (first_ns - len(before) + row, *entry[1:])
            for row, entry in enumerate(sorted(before, key=lambda entry: entry[0]))
        ]
        return [*opening, *window]

    def _profiles(self, topic: str) -> tuple[Any, ...]:
        try:
            found = self.node.get_publishers_info_by_topic(topic)
            return tuple(dict.fromkeys(offered(info.qos_profile) for info in found))
        except Exception:  # noqa: BLE001 - the node may be on its way down: a bag without QoS
            return ()

    def _prune(self) -> None:
        """Keep the newest bags, and no half-written ones of a process that died."""
        mine = sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))
        old = time.time() - STALE_S
        stale = [
            path
            for path in self.folder.glob(f"{TEMPORARY}*")
            if path.is_dir() and path.stat().st_mtime < old
        ]
        for path in [*mine[:-MAX_BAGS], *stale]:
            shutil.rmtree(path, ignore_errors=True)

    def _complain(self, problem: Exception) -> None:
        self.num_failed += 1
        if self._has_failed:
            return
        self._has_failed = True
        reason = f"{type(problem).__name__}: {problem}"
        self.node.get_logger().error(
            f"black box: nothing written to {self.folder} ({reason}); later failures are not "
            "logged until it works again"
        )


def provenance(config: PolicyServerConfig, contract: Contract) -> dict[str, str]:
    """Return what a bag says about where it comes from.

    Args:
        config: of the policy server; a replay runs with the same settings.
        contract: of the policy.
    """
    return {
        **file_provenance(Path(config.policy)),
        **contract_provenance(contract, config.robot),
        "settings": json.dumps(typed.encode(config)),
        **host_provenance(),
    }


def _copied(entries: deque[Kept]) -> list[Kept]:
    """Return what another thread goes on appending to."""
    while True:
        try:
            return list(entries)
        except RuntimeError:  # changed meanwhile
            continue


def _offset_ns() -> int:
    """Return wall-clock time less the steady clock."""
    return time.time_ns() - time.monotonic_ns()
