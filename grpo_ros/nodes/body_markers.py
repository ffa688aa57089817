"""The primitives of a scene as markers, for RViz and the browser view."""

from __future__ import annotations

from visualization_msgs.msg import Marker

from grpo_ros.tasks.base import Body

MARKER_TYPES = {"box": Marker.CUBE, "cylinder": Marker.CYLINDER, "sphere": Marker.SPHERE}


def body_marker(body: Body, frame: str) -> Marker:
    """Return the marker of a primitive at its initial place."""
    message = Marker(ns="bodies", type=MARKER_TYPES[body.shape], text=body.name)
    message.header.frame_id = frame
    message.id = sum(body.name.encode()) % 2**31
    position, scale, colour = message.pose.position, message.scale, message.color
    position.x, position.y, position.z = body.position
    message.pose.orientation.w = 1.0
    if body.shape == "box":
        scale.x, scale.y, scale.z = (2.0 * half for half in body.size)
    elif body.shape == "cylinder":
        scale.x = scale.y = 2.0 * body.size[0]
        scale.z = 2.0 * body.size[1]
    else:
        scale.x = scale.y = scale.z = 2.0 * body.size[0]
    colour.r, colour.g, colour.b, colour.a = body.colour
    return message
