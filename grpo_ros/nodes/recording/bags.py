"""Bags: rosbag2 folders, read with every refusal named; `bag_writer` writes them.

What `ros2 bag record` writes is read too, MCAP and SQLite.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.serialization import deserialize_message
from rosbags.rosbag2 import Reader, ReaderError

from grpo_ros.errors import GrpoRosError

SEPARATOR = "\n" + 80 * "=" + "\n"
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
        if missing > 0:  # a bag may hold more than what its metadata said last
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
