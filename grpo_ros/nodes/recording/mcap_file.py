"""McapFile: one MCAP file that is whole after every flush.

What is written at once is a chunk, its index and an end of the file; the next flush begins where
that end began. So whatever kills the process, a reader finds all that was flushed, and a whole
file. Layout: https://mcap.dev/spec.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
PROFILE = "ros2"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX = 1, 2, 3, 4, 5, 6, 7
CHUNK_INDEX, STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET = 8, 0x0B, 0x0C, 0x0D, 0x0E
DATA_END = 0x0F
SEQUENCE_MASK = 2**32 - 1
_MESSAGE = struct.Struct("<BQHIQQ")
_MESSAGE_HEAD = 22
"""Bytes of a message's record before its data."""


def _record(code: int, body: bytes) -> bytes:
    return struct.pack("<BQ", code, len(body)) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _block(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _map(values: Mapping[str, str]) -> bytes:
    return _block(b"".join(_text(key) + _text(value) for key, value in values.items()))


class McapFile:
    """Writes one file; not thread safe.

    Args:
        path: must not exist.
        library: who writes it.

    Attributes:
        num_messages: that were given.
        size: bytes that were flushed, and those that wait.

    Raises:
        OSError: the disk refuses, here and in the methods; what was flushed before stays whole.
    """

    def __init__(self, path: Path, library: str) -> None:
        self.path = path
        self.num_messages = 0
        self.first_ns, self.last_ns = 0, 0
        self._schemas: list[bytes] = []
        self._channels: list[bytes] = []
        self._counts: dict[int, int] = {}
        self._chunk = bytearray()
        self._indexes: dict[int, bytearray] = {}
        self._chunk_first_ns, self._chunk_last_ns = 0, 0
        self._chunk_indexes: list[bytes] = []
        self._metadata_indexes: list[bytes] = []
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._end = 0
        self._append(MAGIC + _record(HEADER, _text(PROFILE) + _text(library)))

    @property
    def size(self) -> int:
        """Bytes on the disk and waiting."""
        return self._end + len(self._chunk)

    @property
    def waiting(self) -> int:
        """Bytes that no flush has written yet."""
        return len(self._chunk)

    def add_schema(self, name: str, text: str) -> int:
        """Add a message definition; return its number."""
        number = len(self._schemas) + 1
        body = struct.pack("<H", number) + _text(name) + _text("ros2msg") + _block(text.encode())
        self._schemas.append(_record(SCHEMA, body))
        self._chunk += self._schemas[-1]
        return number

    def add_channel(self, topic: str, schema: int, about: Mapping[str, str]) -> int:
        """Add a topic; return its number."""
        number = len(self._channels) + 1
        body = struct.pack("<HH", number, schema) + _text(topic) + _text("cdr") + _map(about)
        self._channels.append(_record(CHANNEL, body))
        self._counts[number] = 0
        self._chunk += self._channels[-1]
        return number

    def write(
        self, channel: int, log_ns: int, publish_ns: int, sequence: int, data: bytes
    ) -> None:
        """Add a message; `flush` brings it to the disk."""
        if not self._indexes:
            self._chunk_first_ns = self._chunk_last_ns = log_ns
        if not self.num_messages:
            self.first_ns = self.last_ns = log_ns
        self._chunk_first_ns = min(self._chunk_first_ns, log_ns)
        self._chunk_last_ns = max(self._chunk_last_ns, log_ns)
        self.first_ns, self.last_ns = min(self.first_ns, log_ns), max(self.last_ns, log_ns)
        index = self._indexes.get(channel)
        if index is None:
            index = self._indexes[channel] = bytearray()
        index += struct.pack("<QQ", log_ns, len(self._chunk))
        self._chunk += _MESSAGE.pack(
            MESSAGE,
            _MESSAGE_HEAD + len(data),
            channel,
            sequence & SEQUENCE_MASK,
            log_ns,
            publish_ns,
        )
        self._chunk += data
        self._counts[channel] += 1
        self.num_messages += 1

    def add_metadata(self, name: str, values: Mapping[str, str]) -> None:
        """Write a record of names and values at once."""
        self.flush()
        record = _record(METADATA, _text(name) + _map(values))
        index = struct.pack("<QQ", self._end, len(record)) + _text(name)
        self._append(record)
        self._metadata_indexes.append(_record(METADATA_INDEX, index))

    def flush(self) -> None:
        """Write the messages that wait, and the end of a whole file."""
        if not self._indexes:
            return
        data = bytes(self._chunk)
        head = struct.pack(
            "<QQQI", self._chunk_first_ns, self._chunk_last_ns, len(data), zlib.crc32(data)
        )
        chunk = _record(CHUNK, head + _text("") + struct.pack("<Q", len(data)) + data)
        parts, offsets, at = [chunk], b"", self._end + len(chunk)
        for channel, index in self._indexes.items():
            parts.append(_record(MESSAGE_INDEX, struct.pack("<H", channel) + _block(bytes(index))))
            offsets += struct.pack("<HQ", channel, at)
            at += len(parts[-1])
        start = self._end
        self._append(b"".join(parts))
        self._chunk_indexes.append(
            _record(
                CHUNK_INDEX,
                struct.pack("<QQQQ", self._chunk_first_ns, self._chunk_last_ns, start, len(chunk))
                + _block(offsets)
                + struct.pack("<Q", at - start - len(chunk))
                + _text("")
                + struct.pack("<QQ", len(data), len(data)),
            )
        )
        self._chunk.clear()
        self._indexes.clear()
        self._chunk_first_ns = self._chunk_last_ns = 0

    def close(self) -> None:
        """Write what waits and the summary, and close the file."""
        self.flush()
        statistics = struct.pack(
            "<QHIIIIQQ",
            self.num_messages,
            len(self._schemas),
            len(self._channels),
            0,
            len(self._metadata_indexes),
            len(self._chunk_indexes),
            self.first_ns,
            self.last_ns,
        ) + _block(b"".join(struct.pack("<HQ", *item) for item in self._counts.items()))
        start = self._end + len(_data_end())
        summary, offsets = b"", b""
        for code, records in (
            (SCHEMA, self._schemas),
            (CHANNEL, self._channels),
            (STATISTICS, [_record(STATISTICS, statistics)]),
            (CHUNK_INDEX, self._chunk_indexes),
            (METADATA_INDEX, self._metadata_indexes),
        ):
            group = b"".join(records)
            if group:
                place = struct.pack("<BQQ", code, start + len(summary), len(group))
                offsets += _record(SUMMARY_OFFSET, place)
            summary += group
        self._write(
            _data_end()
            + summary
            + offsets
            + _footer(start, start + len(summary), summary + offsets)
            + MAGIC
        )
        os.fsync(self._descriptor)
        self.abort()

    def abort(self) -> None:
        """Close the file as it is: whole, without a summary; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _append(self, data: bytes) -> None:
        self._write(data + _data_end() + _footer(0, 0, b"") + MAGIC)
        self._end += len(data)

    def _write(self, data: bytes) -> None:
        """Write at the end of what is flushed; where that fails, put the end back."""
        try:
            self._write_at(self._end, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
                self._write_at(self._end, _data_end() + _footer(0, 0, b"") + MAGIC)
            raise

    def _write_at(self, offset: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            offset, rest = offset + written, rest[written:]


def _data_end() -> bytes:
    return _record(DATA_END, struct.pack("<I", 0))


def _footer(summary: int, offsets: int, data: bytes) -> bytes:
    head = struct.pack("<BQQQ", FOOTER, 20, summary, offsets)
    checksum = zlib.crc32(data + head) if summary else 0
    return head + struct.pack("<I", checksum)
