"""Noting: every message that goes by is shown to whoever keeps a record, before it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OnMessage = Callable[[str, str, Any], None]
"""Called with full topic name, pkg/msg/Type and message, which nobody changes afterwards."""


def noted(
    on_message: OnMessage | None, topic: str, type_name: str, callback: Callable[[Any], None]
) -> Callable[[Any], None]:
    """Return a subscription's callback that shows each message to `on_message` first."""
    if on_message is None:
        return callback

    def call(message: Any) -> None:
        on_message(topic, type_name, message)
        callback(message)

    return call


def type_name(kind: Any) -> str:
    """Return a message class's name as pkg/msg/Type."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


def pass_over(topic: str, type_name: str, message: Any) -> None:
    """Take a message of which nobody keeps a record."""
