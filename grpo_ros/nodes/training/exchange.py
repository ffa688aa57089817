"""A channel between two hosts: requests and answers as ROS messages.

Every message says of which learner (session), of which start of the bridge (epoch) and its
number (sequence). A request is sent again until its answer comes, since discovery may lose
the first ones; the bridge carries out each once and keeps its last answer to send it again.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from grpo_ros.errors import BridgeError, SimulatorError
from grpo_ros.nodes.shared import qos
from grpo_ros.nodes.training.tensor_messages import CODECS
from grpo_ros.simulators.remote.messages import error_fields
from grpo_ros.simulators.remote.serving import GOODBYE, HELLO, OPEN
from grpo_ros.simulators.remote.wire import Message

RESEND_S = 1.0
WAIT_S = 0.2
"""How often a wait looks whether it should go on."""
PRESENT_S = 30.0
"""A learner that has asked nothing for longer may be gone; messages do not tell."""
REQUEST, RESPONSE = "request", "response"


class MessageChannel:
    """The learner's end; see `channel.Channel`.

    Args:
        node: spun by an executor in another thread.
        bridge: name of the bridge's node.
        message_type: a key of CODECS.
        epoch: of the bridge that is meant.
        present_epoch: returns that of the bridge that announced itself last.
    """

    def __init__(
        self, node: Any, bridge: str, message_type: str, epoch: int, present_epoch: Any
    ) -> None:
        self.peer = f"the bridge '{bridge}'"
        self._node, self._epoch, self._present_epoch = node, epoch, present_epoch
        self._session, self._sequence = secrets.randbits(62), 0
        self._codec, self._changed = CODECS[message_type], threading.Condition()
        self._answers: list[Message] = []
        kind = self._codec.kind
        self._out = node.create_publisher(kind, f"{bridge}/{REQUEST}", qos.EXCHANGE)
        self._in = node.create_subscription(
            kind, f"{bridge}/{RESPONSE}", self._on_response, qos.EXCHANGE
        )

    def request(self, message: Message, timeout_s: float) -> Message:
        """Return the answer to a request; see the protocol."""
        if self._in is None:
            raise BridgeError(f"the connection to {self.peer} is closed")
        self._sequence += 1
        envelope = _enveloped(message, self._session, self._epoch, self._sequence)
        encoded, began = self._codec.encode(envelope), time.monotonic()
        deadline, resend = began + timeout_s, began
        with self._changed:
            self._answers.clear()
            while not self._answers:
                now = time.monotonic()
                if self._present_epoch() != self._epoch:
                    raise BridgeError(f"{self.peer} was restarted")
                if now >= deadline:
                    raise BridgeError(
                        f"{self.peer} did not answer within {timeout_s:g} s",
                        remedy="raise bridge.timeout_s if the simulator may take longer",
                    )
                if now >= resend:
                    self._out.publish(encoded)
                    resend = now + RESEND_S
                self._changed.wait(min(WAIT_S, deadline - now))
            return self._answers.pop()

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._in is not None:
            self._sequence += 1
            farewell = Message({"operation": GOODBYE})
            envelope = _enveloped(farewell, self._session, self._epoch, self._sequence)
            self._out.publish(self._codec.encode(envelope))
            self._node.destroy_subscription(self._in)
            self._node.destroy_publisher(self._out)
            self._in = None

    def _on_response(self, received: Any) -> None:
        try:
            session, epoch, sequence, message = _opened(self._codec.decode(received))
        except BridgeError as problem:
            self._node.get_logger().warning(f"{problem}", throttle_duration_sec=1.0)
            return
        with self._changed:
            if (session, epoch, sequence) == (self._session, self._epoch, self._sequence):
                self._answers.append(message)
                self._changed.notify_all()


class ServedMessages:
    """The bridge's end; see `channel.ServedChannel`. A learner that opens takes the bridge over.

    Args:
        node: spun by an executor in another thread.
        message_type: a key of CODECS.
        epoch: a number of this bridge's start.
    """

    def __init__(self, node: Any, message_type: str, epoch: int) -> None:
        self._node, self._epoch, self._codec = node, epoch, CODECS[message_type]
        self._session = self._sequence = 0
        self._last: Any = None
        self._is_open, self._asked_s = False, 0.0
        self._waiting: list[tuple[int, int, Message]] = []
        self._changed = threading.Condition()
        kind = self._codec.kind
        self._out = node.create_publisher(kind, f"~/{RESPONSE}", qos.EXCHANGE)
        node.create_subscription(kind, f"~/{REQUEST}", self._on_request, qos.EXCHANGE)

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next request; see the protocol."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, timeout_s):
                return None
            session, sequence, message = self._waiting.pop(0)
        if session != self._session:
            if message.fields.get("operation") not in (HELLO, OPEN):
                refusal = error_fields(SimulatorError("another learner has taken the bridge over"))
                self._publish(Message(refusal), session, sequence)
                return None
            self._session, self._sequence = session, 0
        if sequence == self._sequence and self._last is not None:
            self._out.publish(self._last)
        if sequence <= self._sequence:
            return None
        self._sequence, self._last, self._asked_s = sequence, None, time.monotonic()
        self._is_open = message.fields.get("operation") != GOODBYE
        return message

    @property
    def has_learner(self) -> bool:
        """Whether a learner has opened the bridge, not left it, and asked not long ago."""
        return self._is_open and time.monotonic() - self._asked_s < PRESENT_S

    def answer(self, message: Message) -> None:
        """Answer the last request; see the protocol."""
        self._last = self._publish(message, self._session, self._sequence)

    def close(self) -> None:
        """Nothing is held."""

    def _publish(self, message: Message, session: int, sequence: int) -> Any:
        encoded = self._codec.encode(_enveloped(message, session, self._epoch, sequence))
        self._out.publish(encoded)
        return encoded

    def _on_request(self, received: Any) -> None:
        try:
            session, epoch, sequence, message = _opened(self._codec.decode(received))
        except BridgeError as problem:
            self._node.get_logger().warning(f"{problem}", throttle_duration_sec=1.0)
            return
        if epoch != self._epoch:
            return
        with self._changed:
            known = [(waiting[0], waiting[1]) for waiting in self._waiting]
            if self._last is None:  # still at work on this one
                known.append((self._session, self._sequence))
            if (session, sequence) not in known:
                self._waiting.append((session, sequence, message))
                self._changed.notify_all()


def _enveloped(message: Message, session: int, epoch: int, sequence: int) -> Message:
    fields = {"session": session, "epoch": epoch, "sequence": sequence, "body": message.fields}
    return Message(fields, message.tensors)


def _opened(message: Message) -> tuple[int, int, int, Message]:
    """Return session, epoch, sequence and what was in the envelope."""
    try:
        numbers = [int(message.fields[key]) for key in ("session", "epoch", "sequence")]
        body = dict(message.fields["body"])
    except (KeyError, TypeError, ValueError) as problem:
        raise BridgeError(f"a message without an envelope: {problem!r}") from None
    return numbers[0], numbers[1], numbers[2], Message(body, message.tensors)
