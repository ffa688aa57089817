"""Who listens to a command's topic, and who else sends on it."""

from __future__ import annotations

import re
from typing import Any

WATCHERS = re.compile(
    r"evaluator|\w+_intake|rosbag2_\w*|_ros2cli_\w*|rviz\w*|plotjuggler\w*|foxglove_bridge"
)
"""Nodes that look at commands and carry none out, by the names that they usually have."""


def publisher_problem(node: Any, name: str, type_name: str) -> str:
    """Say whether nobody listens, somebody expects another type, or somebody else sends."""
    listeners = [
        info
        for info in node.get_subscriptions_info_by_topic(name)
        if not WATCHERS.fullmatch(info.node_name)
    ]
    if not listeners:
        return f"nobody listens to '{name}' ({type_name})"
    others = {info.topic_type for info in listeners} - {type_name}
    if others == {info.topic_type for info in listeners}:
        return f"'{name}' is listened to as {', '.join(sorted(others))}, not as {type_name}"
    senders = node.get_publishers_info_by_topic(name)
    if len(senders) > 1:
        mine = (node.get_name(), node.get_namespace())
        found = sorted(
            {
                f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                for info in senders
                if (info.node_name, info.node_namespace) != mine
            }
        ) or ["another node of this name"]
        return f"{', '.join(found)} publishes on '{name}' too"
    return ""
