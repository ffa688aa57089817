"""LocalNode: takes subscriptions as a node does, and is given the messages by hand.

What listens through it is the code that listens to a robot; nothing of ROS runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from grpo_ros.nodes.inputs.transform_tree import TF_STATIC


@dataclasses.dataclass(frozen=True, eq=False)
class Subscription:
    """A topic's full name, and who takes its messages."""

    topic_name: str
    callback: Callable[[Any], None]


class LocalNode:
    """See the module's docstring.

    Args:
        name: full name of the node, with its namespace.
    """

    def __init__(self, name: str = "/policy_server") -> None:
        self.name = name
        self._namespace = name.rpartition("/")[0]
        self._subscriptions: list[Subscription] = []
        self._static: list[Any] = []
        self._late: list[Subscription] = []

    def resolve_topic_name(self, topic: str) -> str:
        """Return the full name of a topic."""
        if topic.startswith("~"):
            return f"{self.name}{topic[1:]}"
        return topic if topic.startswith("/") else f"{self._namespace}/{topic}"

    def create_subscription(
        self, _: Any, topic: str, callback: Callable[[Any], None], *__: Any
    ) -> Subscription:
        """Take a subscription; a late one is given the static transforms that have gone by."""
        made = Subscription(self.resolve_topic_name(topic), callback)
        self._subscriptions.append(made)
        if made.topic_name == TF_STATIC and self._static:
            self._late.append(made)
        return made

    def destroy_subscription(self, made: Subscription) -> None:
        """Forget a subscription."""
        self._subscriptions.remove(made)

    def deliver(self, topic: str, message: Any) -> None:
        """Give a message to all who listen to a topic, given by its full name."""
        if topic == TF_STATIC:
            self._static.append(message)
        for made in [made for made in self._subscriptions if made.topic_name == topic]:
            made.callback(message)
        late, self._late = self._late, []
        for made in late:
            for static in list(self._static):
                made.callback(static)
