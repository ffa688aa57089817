"""QoS profiles by the purpose of a topic (REP-2003); no node writes a profile inline."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(
    depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy
) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
    )


_RELIABLE, _BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
_VOLATILE, _TRANSIENT = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL

SENSOR = _profile(5, _BEST_EFFORT, _VOLATILE)
"""To subscribe to measurements from any publisher; a late one is worth nothing."""
STATE = _profile(10, _RELIABLE, _VOLATILE)
"""To publish measurements, and to subscribe to them where none may be lost (lock step)."""
COMMAND = _profile(1, _RELIABLE, _VOLATILE)
"""Commands: only the newest counts."""
COMMANDS_HEARD = _profile(100, _RELIABLE, _VOLATILE)
"""To watch commands, where each counts."""
LATCHED = _profile(1, _RELIABLE, _TRANSIENT)
"""The last value is given to whoever comes later: robot_description, status."""
CLOCK = _profile(1, _BEST_EFFORT, _VOLATILE)
"""Simulated time."""
TF = _profile(100, _RELIABLE, _VOLATILE)
"""Transforms, as tf2 subscribes to them."""
EXCHANGE = _profile(4, _RELIABLE, _VOLATILE)
"""Requests and answers between a learner and the bridge that owns its simulator."""
DIAGNOSTICS = _profile(10, _RELIABLE, _VOLATILE)
"""Health."""
TF_STATIC = _profile(100, _RELIABLE, _TRANSIENT)
"""Transforms that never change, as tf2 subscribes to them: several nodes publish some each."""
RECORDED_DEPTH, RECORDED_BULKY_DEPTH = 1000, 30
"""What a recorder's history holds until it is taken: of messages, and of images."""


def recorded(
    reliability: ReliabilityPolicy, durability: DurabilityPolicy, depth: int = RECORDED_DEPTH
) -> QoSProfile:
    """Return a recorder's profile: what the publishers offer, and a deep history."""
    return _profile(depth, reliability, durability)
