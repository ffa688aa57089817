"""What rosbag2 keeps about a bag: metadata.yaml of version 9, and QoS profiles as text."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from grpo_ros.nodes.shared.messages import NANOSECONDS

VERSION = 9
INFORMATION = "rosbag2_bagfile_information"
BULKY = frozenset(
    ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2")
)
DISTRO = os.environ.get("ROS_DISTRO", "unknown")


@dataclasses.dataclass(frozen=True, slots=True)
class TopicMetadata:
    """A topic of a bag: name, pkg/msg/Type, its RIHS01 hash, profiles of its publishers."""

    name: str
    type_name: str
    digest: str
    qos: tuple[Qos, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class FileMetadata:
    """A file of a bag: its name, times of its first and last message, how many there are."""

    name: str
    first_ns: int
    last_ns: int
    num_messages: int


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


def qos_text(profiles: Sequence[Qos]) -> str:
    """Return profiles as a YAML list, empty where there are none."""
    return "\n".join(_qos_lines(profiles))


def metadata_text(
    topics: Mapping[TopicMetadata, int],
    files: Sequence[FileMetadata],
    about: Mapping[str, str],
) -> str:
    """Return metadata.yaml, without its outermost key.

    Args:
        topics: with the number of their messages.
        files: in order.
        about: custom data.
    """
    filled = [file for file in files if file.num_messages]
    first_ns = min((file.first_ns for file in filled), default=0)
    last_ns = max((file.last_ns for file in filled), default=0)
    lines = [
        f"version: {VERSION}",
        "storage_identifier: mcap",
        *_times(first_ns, last_ns),
        f"message_count: {sum(file.num_messages for file in files)}",
        "topics_with_message_count:" + (" []" if not topics else ""),
    ]
    for topic, count in topics.items():
        lines += [
            "  - topic_metadata:",
            f"      name: {_quoted(topic.name)}",
            f"      type: {_quoted(topic.type_name)}",
            "      serialization_format: cdr",
            "      offered_qos_profiles:" + (" []" if not topic.qos else ""),
            *_indented(_qos_lines(topic.qos), 8),
            f"      type_description_hash: {_quoted(topic.digest)}",
            f"    message_count: {count}",
        ]
    lines += ['compression_format: ""', 'compression_mode: ""', "relative_file_paths:"]
    lines += [f"  - {_quoted(file.name)}" for file in files]
    lines.append("files:")
    for file in files:
        lines += [
            f"  - path: {_quoted(file.name)}",
            *_indented(_times(file.first_ns, file.last_ns), 4),
            f"    message_count: {file.num_messages}",
        ]
    lines.append("custom_data:" + (" {}" if not about else ""))
    lines += [f"  {_quoted(key)}: {_quoted(value)}" for key, value in about.items()]
    lines.append(f"ros_distro: {_quoted(DISTRO)}")
    return "\n".join(lines) + "\n"


def _times(first_ns: int, last_ns: int) -> list[str]:
    return [
        "duration:",
        f"  nanoseconds: {last_ns - first_ns}",
        "starting_time:",
        f"  nanoseconds_since_epoch: {first_ns}",
    ]


def _qos_lines(profiles: Sequence[Qos]) -> list[str]:
    lines: list[str] = []
    for profile in profiles:
        lines += [
            f"- history: {profile.history.name.lower()}",
            f"  depth: {profile.depth}",
            f"  reliability: {profile.reliability.name.lower()}",
            f"  durability: {profile.durability.name.lower()}",
        ]
        for name in ("deadline", "lifespan"):
            lines += _time_lines(name, getattr(profile, name))
        lines.append(f"  liveliness: {profile.liveliness.name.lower()}")
        lines += _time_lines("liveliness_lease_duration", profile.liveliness_lease_duration)
        is_bare = str(profile.avoid_ros_namespace_conventions).lower()
        lines.append(f"  avoid_ros_namespace_conventions: {is_bare}")
    return lines


def _time_lines(name: str, value: QosTime) -> list[str]:
    return [f"  {name}:", f"    sec: {value.sec}", f"    nsec: {value.nsec}"]


def _indented(lines: Sequence[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]


def _quoted(value: str) -> str:
    """Return a string that YAML reads as it is."""
    return json.dumps(value)
