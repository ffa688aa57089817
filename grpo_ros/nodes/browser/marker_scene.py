"""Markers as what a scene is made of: shapes, coloured lines, texts."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float32]
Colours = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

# visualization_msgs/Marker
ADD, DELETE, DELETEALL = 0, 2, 3
CUBE, SPHERE, CYLINDER, LINE_STRIP, TEXT = 1, 2, 3, 4, 9
KINDS: dict[int, Literal["box", "sphere", "cylinder"]] = {
    CUBE: "box",
    SPHERE: "sphere",
    CYLINDER: "cylinder",
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """One primitive.

    Attributes:
        name: unique in its scene.
        kind: box, sphere or cylinder. size: extents along x, y, z, m.
        colour: red, green, blue in [0, 255]. opacity: in [0, 1].
        position: (x, y, z) m. wxyz: quaternion.
    """

    name: str
    kind: Literal["box", "sphere", "cylinder"]
    size: tuple[float, float, float]
    colour: Rgb
    opacity: float
    position: tuple[float, float, float]
    wxyz: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Text:
    """A text at a place, m."""

    text: str
    position: tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Lines:
    """Pieces of lines that are equally faint.

    Attributes:
        points: (N, 2, 3) m. colours: (N, 2, 3) of their ends.
        alpha: in [0, 1].
    """

    points: Points
    colours: Colours
    alpha: float


class MarkerScene:
    """What marker messages have added and not deleted, all in one frame."""

    def __init__(self) -> None:
        self._markers: dict[tuple[str, int], Any] = {}

    def take(self, message: Any) -> None:
        """Apply a MarkerArray."""
        for marker in message.markers:
            if marker.action == DELETEALL:
                self._markers.clear()
            elif marker.action == DELETE:
                self._markers.pop((marker.ns, marker.id), None)
            else:
                self._markers[marker.ns, marker.id] = marker

    def shapes(self) -> list[Shape]:
        """Return all boxes, spheres and cylinders."""
        return [
            _shape(f"{namespace}/{marker.text or number}", marker)
            for (namespace, number), marker in self._markers.items()
            if marker.type in KINDS
        ]

    def lines(self) -> list[Lines]:
        """Return the pieces of all line strips, those that are equally faint together."""
        found: dict[float, list[tuple[Points, Colours]]] = {}
        for marker in self._markers.values():
            if marker.type != LINE_STRIP or len(marker.points) < 2:
                continue
            way = np.array([(p.x, p.y, p.z) for p in marker.points], dtype=np.float32)
            pieces = np.stack([way[:-1], way[1:]], axis=1)
            colour = np.array(_rgb(marker.color), dtype=np.uint8)
            alpha = round(float(marker.color.a), 3)
            colours = np.broadcast_to(colour, pieces.shape)
            found.setdefault(alpha, []).append((pieces, colours))
        return [
            Lines(
                np.concatenate([p for p, _ in each]), np.concatenate([c for _, c in each]), alpha
            )
            for alpha, each in sorted(found.items())
        ]

    def texts(self) -> list[Text]:
        """Return all texts."""
        return [
            Text(m.text, (m.pose.position.x, m.pose.position.y, m.pose.position.z))
            for m in self._markers.values()
            if m.type == TEXT
        ]


def _rgb(colour: Any) -> Rgb:
    red, green, blue = (
        min(255, max(0, round(255 * each))) for each in (colour.r, colour.g, colour.b)
    )
    return red, green, blue


def _shape(name: str, marker: Any) -> Shape:
    scale, colour = marker.scale, marker.color
    position, turn = marker.pose.position, marker.pose.orientation
    return Shape(
        name,
        KINDS[marker.type],
        (scale.x, scale.y, scale.z),
        _rgb(colour),
        colour.a,
        (position.x, position.y, position.z),
        (turn.w, turn.x, turn.y, turn.z),
    )
