"""Bags: rosbag2 folders, written whole or not at all, and read with every refusal named.

Written are MCAP bags of version 9. What `ros2 bag record` writes is read too, MCAP and SQLite.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from grpo_ros.errors import GrpoRosError
from grpo_ros.files import sync
from grpo_ros.nodes.messages import NANOSECONDS

SEPARATOR = "\n" + 80 * "=" + "\n"
SLICE_S, REST_S = 1e-3, 1e-3
"""While a bag is written beside a control loop: work at a stretch, and the rest after it."""
TEMPORARY = ".writing-"
REMEDY = "record it anew, or `ros2 bag reindex` what was cut off"


class BagError(GrpoRosError):
    """A bag is missing, damaged, or lacks what is needed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recorded:
    """One message of a bag: full name of the topic, pkg/msg/Type, when it came, the message."""

    topic: str
    type_name: str
    log_ns: int
    message: Any


def message_class(type_name: str) -> Any:
    """Return the class of a message by its name, pkg/msg/Type.

    Raises:
        BagError: it is not installed.
    """
    from rosidl_runtime_py.utilities import (  # type: ignore[import-untyped, unused-ignore]
        get_message,
    )

    try:
        return get_message(type_name)
    except (AttributeError, ModuleNotFoundError, ValueError) as problem:
        raise BagError(
            f"messages of type '{type_name}' are not known here ({problem})",
            expected="an installed interface package",
            remedy=f"install ros-jazzy-{type_name.split('/')[0].replace('_', '-')}",
        ) from problem


def definition(type_name: str) -> tuple[str, str]:
    """Return a message's definition, with all it is made of, and its RIHS01 hash.

    Raises:
        BagError: its package is not installed, or came without its sources.
    """
    try:
        described = json.loads(_interface(type_name, "json").read_text())
        parts = described["type_description_msg"]["referenced_type_descriptions"]
        text = _interface(type_name, "msg").read_text()
        for part in parts:
            name = part["type_name"]
            text += f"{SEPARATOR}MSG: {name}\n{_interface(name, 'msg').read_text()}"
        return text, str(described["type_hashes"][0]["hash_string"])
    except (PackageNotFoundError, OSError, ValueError, KeyError, IndexError) as problem:
        raise BagError(
            f"the definition of '{type_name}' is not installed ({problem})",
            expected="its .msg and .json in the package's share folder",
        ) from problem


def _interface(type_name: str, suffix: str) -> Path:
    package, _, name = type_name.split("/")
    return Path(get_package_share_directory(package)) / "msg" / f"{name}.{suffix}"


def offered(profile: Any) -> Qos:
    """Return an rclpy QoS profile as a bag holds it."""
    return Qos(
        QosHistory(int(profile.history)),
        int(profile.depth),
        QosReliability(int(profile.reliability)),
        QosDurability(int(profile.durability)),
        _qos_time(profile.deadline),
        _qos_time(profile.lifespan),
        QosLiveliness(int(profile.liveliness)),
        _qos_time(profile.liveliness_lease_duration),
        bool(profile.avoid_ros_namespace_conventions),
    )


def _qos_time(duration: Any) -> QosTime:
    return QosTime(*divmod(int(duration.nanoseconds), NANOSECONDS))


# -------------------------------------------------------------------- writing


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
        OSError: the disk refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=target.parent))
    try:
        writer = Writer(folder / target.name, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.open()
        try:
            number, problems = _write(writer, recorded, qos, may_rest)
            for key, value in {**about, "left_out": "; ".join(problems)}.items():
                writer.set_custom_data(key, value)
            writer.close()
        except BaseException:
            with contextlib.suppress(OSError):
                writer.abort()
            raise
        for path in [*writer.path.iterdir(), writer.path]:
            sync(path)
        writer.path.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return number, problems


class Encoder:
    """Serialises messages of one type.

    rmw_fastrtps gives the size that it foresaw, which may be some bytes of chance more than the
    message has; strict readers refuse those, so they are cut off.

    Args:
        type_name: pkg/msg/Type.

    Raises:
        BagError: its definition is not installed.
    """

    def __init__(self, type_name: str) -> None:
        self.text, self.digest = definition(type_name)
        self._kind = message_class(type_name)
        self._store = get_typestore(Stores.EMPTY)
        self._store.register(get_types_from_msg(self.text, type_name))
        self._layout = self._store.get_msgdef(type_name)

    def __call__(self, message: Any) -> bytes:
        """Return a message as CDR.

        Raises:
            TypeError: it is of another type.
        """
        if not isinstance(message, self._kind):
            raise TypeError(f"a {type(message).__name__}, not a {self._kind.__name__}")
        data: bytes = serialize_message(message)
        is_little = data[1] == 1
        read = self._layout.deserialize_cdr_le if is_little else self._layout.deserialize_cdr_be
        _, size = read(data[4:], 0, self._layout.cls, self._store)
        return data[: 4 + size]


@functools.cache
def encoder(type_name: str) -> Encoder:
    """Return the encoder of a type; making one takes some 20 ms.

    Raises:
        BagError: its definition is not installed.
    """
    return Encoder(type_name)


def _write(
    writer: Writer,
    recorded: Iterable[Recorded],
    qos: Mapping[str, Sequence[Qos]],
    may_rest: Callable[[], bool],
) -> tuple[int, tuple[str, ...]]:
    connections: dict[tuple[str, str], Any] = {}
    problems: dict[str, None] = {}
    number, last_ns, began_s = 0, 0, time.perf_counter()
    for item in recorded:
        key = item.topic, item.type_name
        try:
            if key not in connections:
                connections[key] = None
                encode = encoder(item.type_name)
                connections[key] = writer.add_connection(
                    item.topic,
                    item.type_name,
                    msgdef=encode.text,
                    rihs01=encode.digest,
                    offered_qos_profiles=qos.get(item.topic, ()),
                )
            if connections[key] is None:
                continue
            message = item.message() if callable(item.message) else item.message
            data = encoder(item.type_name)(message)
        except OSError:
            raise
        except Exception as problem:  # noqa: BLE001 - rmw's errors share no base; others go on
            problems[f"{item.topic}: {problem}"] = None
            continue
        # Readers sort by time: no two messages share one, so that the order stays.
        last_ns = max(item.log_ns, last_ns + 1)
        writer.write(connections[key], last_ns, data)
        number += 1
        if time.perf_counter() - began_s > SLICE_S and may_rest():
            time.sleep(REST_S)
            began_s = time.perf_counter()
    return number, tuple(problems)


# -------------------------------------------------------------------- reading


class Bag:
    """A recorded bag, open for reading.

    Args:
        path: its folder, or a single .mcap or .db3 file.

    Attributes:
        topics: full name -> type, as pkg/msg/Type.
        about: what the recorder wrote down: provenance of our own bags.
        message_count: of all topics.

    Raises:
        BagError: it is missing, cut off or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: Any = None
        with self._refusals():
            reader = Reader(path)
            reader.open()
            self._reader = reader
            self.topics = {c.topic: c.msgtype for c in reader.connections}
            self.about: Mapping[str, str] = dict(reader.storage.metadata.custom or {})
            self.message_count = int(reader.message_count)

    def messages(self, topics: Collection[str]) -> Iterator[Recorded]:
        """Yield the messages of these topics in the order in which they came.

        Raises:
            BagError: the bag is damaged, or a type is not the one that is installed here.
        """
        connections = [c for c in self._reader.connections if c.topic in topics]
        kinds = {c.topic: message_class(c.msgtype) for c in connections}
        for connection in connections:
            self._check_definition(connection)
        missing = sum(c.msgcount for c in connections)
        if connections:
            with self._refusals():
                for connection, log_ns, data in self._reader.messages(connections):
                    message = deserialize_message(bytes(data), kinds[connection.topic])
                    missing -= 1
                    yield Recorded(connection.topic, connection.msgtype, log_ns, message)
        if missing:
            raise BagError(
                f"{self.path}: {missing} messages fewer than its index says", remedy=REMEDY
            )

    def close(self) -> None:
        """Close the files; idempotent."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_definition(self, connection: Any) -> None:
        try:
            _, ours = definition(connection.msgtype)
        except BagError:  # no sources installed: nothing to compare with
            return
        if connection.digest and connection.digest != ours:
            raise BagError(
                f"{self.path}: '{connection.topic}' holds another {connection.msgtype} than the "
                f"one installed here",
                expected=f"the definition with hash {ours}",
                remedy=f"not {connection.digest}: use the version that it was recorded with",
            )

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn whatever a damaged file leads to into one kind of error."""
        try:
            yield
        except FileNotFoundError as problem:
            raise BagError(
                f"{self.path}: no bag ({problem})",
                expected="a folder with metadata.yaml, or one .mcap or .db3 file",
            ) from problem
        except (GrpoRosError, GeneratorExit):
            raise
        except (
            ReaderError,
            OSError,
            EOFError,
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            struct.error,
            AssertionError,
            RuntimeError,
            sqlite3.Error,
        ) as problem:
            raise BagError(
                f"{self.path}: truncated or damaged ({type(problem).__name__}: {problem})",
                expected="a bag that was closed",
                remedy=REMEDY,
            ) from problem
