"""What the policy server says of itself: its status, the gate's interventions, diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from grpo_ros.nodes.recording.noting import type_name
from grpo_ros.nodes.shared import messages, qos

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class StatusOutput:
    """Publishes ~/status, ~/interventions and /diagnostics of a node.

    Args:
        node: has the policy's path in its `config`, what it last failed with as `failure`, and a
            `black_box` that is dumped at an error.
    """

    def __init__(self, node: Any) -> None:
        self.node = node
        self._status = node.create_publisher(DiagnosticStatus, "~/status", qos.LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._interventions = node.create_publisher(
            DiagnosticStatus, "~/interventions", qos.DIAGNOSTICS
        )
        self._shown: tuple[bytes, str] | None = None
        self._latest: tuple[bytes, str, dict[str, object]] = (OK, "", {})
        self._is_latest_shown = True

    def show(self, level: bytes, message: str, key: str = "", fault: str = "") -> None:
        """Publish the status where it changed; `key` tells changes apart that recur.

        A message that changes while its key does not is published once a second.
        """
        values: dict[str, object] = {"policy": self.node.config.policy}
        if fault:
            values["fault"] = fault
        latest, shown = (level, message, values), (level, key or message)
        self._is_latest_shown &= latest == self._latest
        self._latest = latest
        if shown == self._shown:
            return
        self._shown = shown
        if level != OK and message != self.node.failure:
            self.node.get_logger().warning(message)
        self._show_latest()
        if level == ERROR:
            self.node.black_box.dump(fault or "error", message)

    def report(self, kind: str, reason: str, count: int, period: int) -> None:
        """Publish an intervention of the gate: its number among those of its kind, and when."""
        self.node.get_logger().warning(f"safety gate: {reason}", throttle_duration_sec=1.0)
        values = {"kind": kind, "count": count, "period": period}
        self._publish(self._interventions, WARN, reason, values)
        self.node.black_box.dump(kind, reason)

    def diagnose(self, values: Mapping[str, object]) -> None:
        """Publish diagnostics, once a second, and the status if its words have changed."""
        if not self._is_latest_shown:
            self._show_latest()
        level, message, _ = self._latest
        status = messages.status(level, self.node.get_name(), message, values)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self.node.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def _show_latest(self) -> None:
        self._publish(self._status, *self._latest)
        self._is_latest_shown = True

    def _publish(
        self, publisher: Any, level: bytes, message: str, values: Mapping[str, object]
    ) -> None:
        status = messages.status(level, self.node.get_name(), message, values)
        publisher.publish(status)
        self.node.black_box.note(publisher.topic_name, type_name(DiagnosticStatus), status)
