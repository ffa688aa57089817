"""BagWriter: the one way in which a bag is written, an MCAP bag of rosbag2's version 9.

A recorder writes into the folder and can be killed at any moment; a black box writes beside it
and moves the whole folder (`write_bag`). Both are `ros2 bag`'s layout: `<name>/<name>_0.mcap`,
the next file `_1`, `metadata.yaml` beside them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rosbags.interfaces import Qos

from grpo_ros import __version__
from grpo_ros.files import sync
from grpo_ros.nodes.recording.bag_metadata import (
    INFORMATION,
    FileMetadata,
    TopicMetadata,
    metadata_text,
    qos_text,
)
from grpo_ros.nodes.recording.bags import BagError, Recorded
from grpo_ros.nodes.recording.encoder import encoder
from grpo_ros.nodes.recording.mcap_file import McapFile
from grpo_ros.nodes.shared.messages import NANOSECONDS

SLICE_S, REST_S = 1e-3, 1e-3
"""While a bag is written beside a control loop: work at a stretch, and the rest after it."""
TEMPORARY = ".writing-"
CHUNK_BYTES = 2**20
LIBRARY = f"grpo_ros {__version__}"
METADATA = "metadata.yaml"
REMEDIES = {
    errno.ENOSPC: "free some space; what was written before is a whole bag",
    errno.EDQUOT: "free some of your quota; what was written before is a whole bag",
    errno.EFBIG: "split the bag: max_file_mb",
    errno.EACCES: "give a folder that may be written to",
    errno.EROFS: "give a folder on a file system that may be written to",
    errno.EEXIST: "give another name, or move the old bag away",
}


@dataclasses.dataclass(slots=True, eq=False)
class _Topic:
    about: TopicMetadata
    text: str
    count: int = 0
    channel: int = 0
    """In the present file; 0: not yet."""


class BagWriter:
    """Writes a bag into a folder of its own; not thread safe.

    Args:
        folder: of the bag, which must not exist; its name names the files.
        about: where it comes from; kept as custom data, and in each file as `grpo_ros`.
        max_file_bytes: a file that has so many is followed by another one; 0: no limit.
        max_file_s: a file that spans so much is followed by another one; 0: no limit.

    Attributes:
        num_messages: that were given.

    Raises:
        BagError: the folder exists or cannot be written to, here; the disk refuses, elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, str],
        max_file_bytes: int = 0,
        max_file_s: float = 0.0,
    ) -> None:
        self.folder, self.about = folder, dict(about)
        self.num_messages = 0
        self._max_bytes, self._max_ns = max_file_bytes, round(max_file_s * NANOSECONDS)
        self._topics: list[_Topic] = []
        self._schemas: dict[str, int] = {}
        self._files: list[FileMetadata] = []
        self._said = ""
        self._last_ns = 0
        with refusals(folder):
            if folder.parent.exists() and not folder.parent.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "", str(folder.parent))
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            self._file = self._next_file()
            self._write_metadata()

    def add_topic(self, about: TopicMetadata, text: str) -> int:
        """Return the number under which messages of a topic are written.

        Args:
            about: of the topic. text: the definition of its messages.
        """
        self._topics.append(_Topic(about, text))
        return len(self._topics) - 1

    def write(
        self, topic: int, log_ns: int, data: bytes, publish_ns: int = 0, sequence: int = 0
    ) -> None:
        """Add a message as CDR.

        Args:
            topic: as `add_topic` numbered it.
            log_ns: when it was received; moved on where it is not later than the one before, for
                readers sort by time, and the order has to stay.
            data: serialised.
            publish_ns: when it was sent; 0: as received.
            sequence: its number among those of its publisher.
        """
        log_ns = self._last_ns = max(log_ns, self._last_ns + 1)
        with refusals(self._file.path):
            if self._is_full(log_ns):
                self._close_file()
                self._file = self._next_file()
            found = self._topics[topic]
            self._file.write(
                found.channel or self._channel(found), log_ns, publish_ns or log_ns, sequence, data
            )
            found.count += 1
            self.num_messages += 1
            if self._file.waiting > CHUNK_BYTES:
                self._file.flush()

    def flush(self) -> None:
        """Bring what was given to the disk, so that it is found even if the process is killed."""
        with refusals(self._file.path):
            self._file.flush()
            self._write_metadata()

    def close(self, about: Mapping[str, str] | None = None) -> None:
        """Finish the bag.

        Args:
            about: more about it, which was not known before.
        """
        self.about.update(about or {})
        with refusals(self._file.path):
            self._close_file()
            self._write_metadata()
            for path in [*self.folder.iterdir(), self.folder]:
                sync(path)

    def abort(self) -> None:
        """Close the files as they are; idempotent."""
        self._file.abort()

    def _is_full(self, log_ns: int) -> bool:
        file = self._file
        if not file.num_messages:
            return False
        is_large = 0 < self._max_bytes <= file.size
        return is_large or 0 < self._max_ns <= log_ns - file.first_ns

    def _channel(self, topic: _Topic) -> int:
        about, file = topic.about, self._file
        if about.type_name not in self._schemas:
            self._schemas[about.type_name] = file.add_schema(about.type_name, topic.text)
        profiles, schema = qos_text(about.qos), self._schemas[about.type_name]
        topic.channel = file.add_channel(
            about.name,
            schema,
            {"offered_qos_profiles": profiles, "topic_type_hash": about.digest},
        )
        return topic.channel

    def _next_file(self) -> McapFile:
        self._schemas.clear()
        for topic in self._topics:
            topic.channel = 0
        file = McapFile(self.folder / f"{self.folder.name}_{len(self._files)}.mcap", LIBRARY)
        try:
            file.add_metadata("grpo_ros", self.about)
        except OSError:
            file.abort()
            raise
        return file

    def _close_file(self) -> None:
        """Finish the present file; a topic without messages is in the last one all the same."""
        for topic in self._topics:
            if not topic.channel:
                self._channel(topic)
        self._file.flush()
        self._file.add_metadata("rosbag2", {"serialized_metadata": self._text()})
        self._file.close()
        self._files.append(self._file_metadata())

    def _file_metadata(self) -> FileMetadata:
        file = self._file
        return FileMetadata(file.path.name, file.first_ns, file.last_ns, file.num_messages)

    def _text(self) -> str:
        files = list(self._files)
        if not files or files[-1].name != self._file.path.name:
            files.append(self._file_metadata())
        return metadata_text({t.about: t.count for t in self._topics}, files, self.about)

    def _write_metadata(self) -> None:
        lines = [f"  {line}\n" for line in self._text().splitlines()]
        text = f"{INFORMATION}:\n{''.join(lines)}"
        if text == self._said:
            return
        temporary = self.folder / f".{METADATA}.tmp"
        temporary.write_text(text)
        temporary.replace(self.folder / METADATA)
        self._said = text


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into BagError."""
    try:
        yield
    except FileExistsError as problem:
        raise BagError(
            f"{problem.filename or path}: there is a bag already",
            expected="a folder that does not exist",
            remedy=REMEDIES[errno.EEXIST],
        ) from problem
    except OSError as problem:
        code = problem.errno or 0
        raise BagError(
            f"{problem.filename or path}: not written: [Errno {code}] {os.strerror(code)}",
            expected="a folder with room that may be written to",
            remedy=REMEDIES.get(code, "give another folder"),
        ) from problem


def write_bag(
    target: Path,
    recorded: Iterable[Recorded],
    qos: Mapping[str, Sequence[Qos]],
    about: Mapping[str, str],
    may_rest: Callable[[], bool] = lambda: False,
) -> tuple[int, tuple[str, ...]]:
    """Write a bag as the folder `target`, which appears whole or not at all.

    Args:
        target: must not exist.
        recorded: in the order in which they came; a callable message is called for it.
        qos: topic -> profiles of its publishers.
        about: kept as the bag's custom data.
        may_rest: whether there is time to let other threads run in between.

    Returns:
        How many messages were written, and why others were not.

    Raises:
        BagError: the disk refuses.
    """
    with refusals(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    try:
        writer = BagWriter(folder / target.name, about)
        try:
            problems = _write(writer, recorded, qos, may_rest)
            writer.close({"left_out": "; ".join(problems)})
        finally:
            writer.abort()
        with refusals(target):
            writer.folder.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return writer.num_messages, problems


def _write(
    writer: BagWriter,
    recorded: Iterable[Recorded],
    qos: Mapping[str, Sequence[Qos]],
    may_rest: Callable[[], bool],
) -> tuple[str, ...]:
    topics: dict[tuple[str, str], int] = {}
    problems: dict[str, None] = {}
    began_s = time.perf_counter()
    for item in recorded:
        key = item.topic, item.type_name
        try:
            if key not in topics:
                topics[key] = -1
                encode = encoder(item.type_name)
                profiles = tuple(qos.get(item.topic, ()))
                named = TopicMetadata(item.topic, item.type_name, encode.digest, profiles)
                topics[key] = writer.add_topic(named, encode.text)
            if topics[key] < 0:
                continue
            message = item.message() if callable(item.message) else item.message
            data = encoder(item.type_name)(message)
        except OSError:
            raise
        except Exception as problem:  # noqa: BLE001 - rmw's errors share no base; others go on
            problems[f"{item.topic}: {problem}"] = None
            continue
        writer.write(topics[key], item.log_ns, data)
        if time.perf_counter() - began_s > SLICE_S and may_rest():
            time.sleep(REST_S)
            began_s = time.perf_counter()
    return tuple(problems)
