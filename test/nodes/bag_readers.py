"""Two readers of bags that have nothing in common with the writer: mcap's, and rosbags'."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore


class Read(NamedTuple):
    """One message: when it was logged and sent, its topic, its number, CDR."""

    log_ns: int
    publish_ns: int
    topic: str
    sequence: int
    data: bytes


def information(bag: Path) -> dict[str, Any]:
    """Return what metadata.yaml holds."""
    return yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]


def read_by_mcap(bag: Path) -> list[Read]:
    """Return every message, of all files in order."""
    found = []
    for name in information(bag)["relative_file_paths"]:
        with (bag / name).open("rb") as file:
            reader = make_reader(file, validate_crcs=True)
            for _, channel, message in reader.iter_messages():
                times = message.log_time, message.publish_time
                found.append(Read(*times, channel.topic, message.sequence, message.data))
    return found


def channels_of(path: Path) -> dict[str, dict[str, str]]:
    """Return what a file says about each topic."""
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
        assert summary is not None
        return {channel.topic: channel.metadata for channel in summary.channels.values()}


def records_of(path: Path) -> dict[str, dict[str, str]]:
    """Return a file's metadata records by name."""
    with path.open("rb") as file:
        return {record.name: record.metadata for record in make_reader(file).iter_metadata()}


def read_by_rosbags(bag: Path) -> list[tuple[int, str, bytes]]:
    """Return time, topic and CDR of every message."""
    with Reader(bag) as reader:
        return [(ns, c.topic, bytes(data)) for c, ns, data in reader.messages()]


def decoded(bag: Path, topic: str) -> list[Any]:
    """Return a topic's messages, decoded with nothing but the definitions in the bag."""
    store = get_typestore(Stores.EMPTY)
    with Reader(bag) as reader:
        (connection,) = (c for c in reader.connections if c.topic == topic)
        store.register(get_types_from_msg(connection.msgdef.data, connection.msgtype))
        return [
            store.deserialize_cdr(data, connection.msgtype)
            for _, _, data in reader.messages([connection])
        ]


def agreed(bag: Path) -> list[Read]:
    """Return every message, which both readers find equal and in the order of time."""
    found = read_by_mcap(bag)
    assert read_by_rosbags(bag) == [(m.log_ns, m.topic, bytes(m.data)) for m in found]
    times = [m.log_ns for m in found]
    assert times == sorted(set(times))
    return found
