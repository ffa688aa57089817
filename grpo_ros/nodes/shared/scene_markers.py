"""A scene as markers: the task's primitives, and how the episode stands as a text above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from grpo_ros.nodes.shared import messages
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.camera import ground

TYPES = {"box": Marker.CUBE, "cylinder": Marker.CYLINDER, "sphere": Marker.SPHERE}
BODIES, OUTCOME = "bodies", "outcome"
COLOURS = {True: (0.16, 0.63, 0.34), False: (0.80, 0.22, 0.18), None: (0.25, 0.27, 0.30)}
"""Of a text, by whether the outcome was verified; None: it is open."""
ABOVE, TEXT = 0.6, 0.06
"""Place and height of the text, as shares of the ground's extent."""


class SceneMarkers:
    """The markers of a scene; one message at a time, which the next changes.

    Args:
        bodies: what is drawn.
        frame: of the poses.
    """

    def __init__(self, bodies: Sequence[Body], frame: str) -> None:
        self._frame = frame
        self._text = _text(bodies, frame)
        self.follow(bodies)

    def follow(self, bodies: Sequence[Body]) -> None:
        """Draw these bodies from now on, and no others."""
        self._bodies = {
            body.name: _body(i, body, self._frame) for i, body in enumerate(bodies, start=1)
        }
        self._is_new = True

    def message(
        self,
        stamp_ns: int,
        poses: Mapping[str, Sequence[float]],
        outcome: str,
        has_succeeded: bool | None = None,
    ) -> MarkerArray:
        """Return all markers.

        Args:
            stamp_ns: of the scene.
            poses: x, y, z in m and x, y, z, w by name; a body that is not named stays.
            outcome: the text; empty: none is shown.
            has_succeeded: whether the outcome was verified; None: it is open.
        """
        stamp = messages.to_time(stamp_ns)
        found = [Marker(action=Marker.DELETEALL)] if self._is_new else []
        self._is_new = False
        for name, marker in self._bodies.items():
            marker.header.stamp = stamp
            if name in poses:
                messages.set_pose(marker.pose, poses[name])
            found.append(marker)
        text = self._text
        text.action = Marker.ADD if outcome else Marker.DELETE
        text.header.stamp, text.text = stamp, outcome
        r, g, b = COLOURS[has_succeeded]
        text.color = ColorRGBA(r=r, g=g, b=b, a=1.0)
        found.append(text)
        return MarkerArray(markers=found)


def _body(number: int, body: Body, frame: str) -> Marker:
    """Return the marker of a primitive at its initial place."""
    message = Marker(ns=BODIES, id=number, type=TYPES[body.shape], text=body.name)
    message.header.frame_id = frame
    messages.set_pose(message.pose, (*body.position, 0.0, 0.0, 0.0, 1.0))
    scale, colour = message.scale, message.color
    if body.shape == "box":
        scale.x, scale.y, scale.z = (2.0 * half for half in body.size)
    elif body.shape == "cylinder":
        scale.x = scale.y = 2.0 * body.size[0]
        scale.z = 2.0 * body.size[1]
    else:
        scale.x = scale.y = scale.z = 2.0 * body.size[0]
    colour.r, colour.g, colour.b, colour.a = body.colour
    return message


def _text(bodies: Sequence[Body], frame: str) -> Marker:
    """Return the text above the middle of table or floor."""
    (x, y, z), size = ground(bodies)
    message = Marker(ns=OUTCOME, id=0, type=Marker.TEXT_VIEW_FACING)
    message.header.frame_id = frame
    messages.set_pose(message.pose, (x, y, z + ABOVE * size, 0.0, 0.0, 0.0, 1.0))
    message.scale.z = TEXT * size
    return message
