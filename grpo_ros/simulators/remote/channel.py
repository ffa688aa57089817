"""Channel: what carries requests and answers between a learner and a bridge."""

from __future__ import annotations

from typing import Protocol

from grpo_ros.simulators.remote.wire import Message


class Channel(Protocol):
    """The learner's end of one connection. One request at a time; used from one thread.

    After any error the connection is over: an answer that came late must not be taken for that to
    another request.
    """

    peer: str
    """Who is at the other end, for messages: "process 12 on host"."""

    def request(self, message: Message, timeout_s: float) -> Message:
        """Return the answer to a request; its tensors belong to the caller.

        Raises:
            BridgeError: no answer in time, the bridge is gone or another one, or what came
                cannot be read.
        """

    def close(self) -> None:
        """Leave; idempotent."""


class ServedChannel(Protocol):
    """The bridge's end of one connection."""

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next request, or None if there is none within the time.

        Raises:
            BridgeError: the learner is gone, or what came cannot be read.
        """

    def answer(self, message: Message) -> None:
        """Answer the request that was received last.

        Raises:
            BridgeError: the learner is gone.
        """

    def close(self) -> None:
        """Leave; idempotent."""


class Connector(Protocol):
    """Finds a bridge, or starts one."""

    def connect(self, timeout_s: float) -> Channel:
        """Return a connection to a bridge that is ready.

        Raises:
            BridgeError: none is ready within the time.
            GrpoRosError: the bridge refuses to start, and says why.
        """

    def close(self) -> None:
        """End what was started; idempotent."""
