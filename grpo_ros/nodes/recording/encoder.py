"""Encoder: messages as CDR, of the size that they have."""

from __future__ import annotations

import functools
from typing import Any

from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from grpo_ros.nodes.recording.bags import definition, message_class


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
