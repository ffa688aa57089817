"""Capsules that enclose the collision shapes of a URDF: a segment and a radius each.

A sphere is a capsule of no length. A cylinder's segment is its whole axis and its radius its own,
so the capsule reaches past its flat ends by the radius. A box's segment runs along its longest
side, with the radius that reaches the edges along it. A mesh is not read: it is left out where its
link also has one of these shapes, and refused where it has not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from grpo_ros.elementary import Array
from grpo_ros.errors import RobotError
from grpo_ros.robots.urdf import attribute, child_element, matrix_from_rpy, number, vector


@dataclasses.dataclass(frozen=True)
class Capsule:
    """All points within `radius` of a segment.

    Attributes:
        link: that it belongs to.
        start, end: (3,) of the segment, m.
        radius: m.
    """

    link: str
    start: Array
    end: Array
    radius: float

    def moved(self, rotation: Array, translation: Array) -> Capsule:
        """Return it in another frame, given its frame's rotation (3, 3) and origin (3,) there."""
        start, end = (rotation @ point + translation for point in (self.start, self.end))
        return dataclasses.replace(self, start=start, end=end)

    def encloses(self, other: Capsule) -> bool:
        """Whether it encloses another one in the same frame."""
        return all(
            _point_to_segment(point, self.start, self.end) + other.radius <= self.radius + 1e-12
            for point in (other.start, other.end)
        )


def link_capsules(urdf: str, file: str) -> tuple[Capsule, ...]:
    """Return the capsules of every link of a URDF, each in its link's frame.

    Args:
        urdf: its text.
        file: for messages.

    Raises:
        RobotError: a shape is incomplete, of no size, or a mesh alone; names the link.
    """
    found: list[Capsule] = []
    for link in ElementTree.fromstring(urdf).findall("link"):
        shapes = link.findall("collision")
        name = attribute(link, "name", file, "link")
        capsules = [_capsule(shape, name, file) for shape in shapes]
        read = [capsule for capsule in capsules if capsule is not None]
        if shapes and not read:
            raise RobotError(
                f"{file}: link '{name}' collides with meshes alone",
                expected="a box, cylinder or sphere beside them, whose distances can be watched",
                remedy="add one that encloses the mesh, or leave safety.table_height_m out and "
                "set safety.self_clearance_m: 0",
            )
        found += read
    return tuple(found)


def enclosing(capsules: Sequence[Capsule]) -> Capsule:
    """Return one capsule that encloses several of one frame; it takes the first one's link.

    Its segment lies along the direction in which their ends spread most.
    """
    ends = np.array([point for capsule in capsules for point in (capsule.start, capsule.end)])
    radii = np.repeat([capsule.radius for capsule in capsules], 2)
    middle = (ends.max(axis=0) + ends.min(axis=0)) / 2.0
    direction = np.linalg.svd(ends - middle)[2][0]
    along = (ends - middle) @ direction
    reach = radii.max()
    low, high = (along - radii).min() + reach, (along + radii).max() - reach
    start, end = middle + low * direction, middle + high * direction
    radius = max(
        _point_to_segment(point, start, end) + radius
        for point, radius in zip(ends, radii.tolist(), strict=True)
    )
    return Capsule(capsules[0].link, start, end, radius)


def without_enclosed(capsules: Sequence[Capsule]) -> list[Capsule]:
    """Return the capsules of one frame without those that another of their link encloses."""
    kept: list[Capsule] = []
    for capsule in sorted(capsules, key=lambda c: -c.radius):
        if not any(other.link == capsule.link and other.encloses(capsule) for other in kept):
            kept.append(capsule)
    return kept


def _capsule(shape: ElementTree.Element, link: str, file: str) -> Capsule | None:
    where = f"collision of link '{link}'"
    origin = shape.find("origin")
    translation = vector(origin, "xyz", "0 0 0", file, where)
    rotation = matrix_from_rpy(vector(origin, "rpy", "0 0 0", file, where))
    geometry = child_element(shape, "geometry", file, where)
    axis: Array = np.zeros(3)
    for kind in geometry:
        if kind.tag == "mesh":
            return None
        if kind.tag == "sphere":
            radius = _length(kind, "radius", file, where)
        elif kind.tag == "cylinder":
            radius = _length(kind, "radius", file, where)
            axis[2] = _length(kind, "length", file, where) / 2.0
        elif kind.tag == "box":
            half = vector(kind, "size", "", file, where) / 2.0
            longest = int(np.argmax(half))
            axis[longest] = half[longest]
            half[longest] = 0.0
            radius = float(np.sqrt(half @ half))
        else:
            continue
        if radius <= 0.0 or (axis < 0.0).any():
            raise RobotError(f"{file}: {where} is a {kind.tag} of no size", expected="sizes > 0")
        return Capsule(link, -axis, axis, radius).moved(rotation, translation)
    raise RobotError(f"{file}: {where} has no shape", expected="box | cylinder | sphere | mesh")


def _length(element: ElementTree.Element, name: str, file: str, where: str) -> float:
    return number(attribute(element, name, file, where), file, where)


def _point_to_segment(point: Array, start: Array, end: Array) -> float:
    along = end - start
    length = float(along @ along)
    share = 0.0 if length == 0.0 else min(max(float((point - start) @ along) / length, 0.0), 1.0)
    away = point - start - share * along
    return float(np.sqrt(away @ away))
