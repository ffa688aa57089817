"""Sockets by which a learner finds a running bridge on its host.

The names are abstract (Linux), so no socket file can be left behind; only processes of the same
user are let in.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct

from grpo_ros.errors import BridgeError

CREDENTIALS = struct.Struct("3i")
"""Process, user and group of a peer."""


def listen() -> tuple[socket.socket, str]:
    """Return a socket that accepts one learner at a time, and the name that leads to it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    name = f"grpo_ros.{os.getpid()}.{secrets.token_hex(8)}"
    listener.bind(f"\0{name}")
    listener.listen(1)
    return listener, name


def accept(listener: socket.socket, timeout_s: float) -> socket.socket | None:
    """Return a connection of this user's, or None if there was none within the time."""
    listener.settimeout(timeout_s)
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        return None
    if _user(connection) == os.getuid():
        return connection
    connection.close()
    return None


def connect(name: str, timeout_s: float) -> socket.socket:
    """Return a connection to a named socket of this user's.

    Raises:
        BridgeError: nobody listens there, or another user does.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(timeout_s)
    with contextlib.suppress(OSError):
        connection.connect(f"\0{name}")
        if _user(connection) == os.getuid():
            return connection
    connection.close()
    raise BridgeError(f"no bridge of this user listens at '{name}'")


def _user(connection: socket.socket) -> int:
    """Return the user id of the peer."""
    size = CREDENTIALS.size
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(CREDENTIALS.unpack(found)[1])
