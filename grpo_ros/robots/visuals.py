"""What a URDF's links look like: primitives and mesh files, each in its link's frame."""

from __future__ import annotations

import dataclasses
from typing import Literal
from xml.etree import ElementTree

from grpo_ros.elementary import Array
from grpo_ros.errors import RobotError
from grpo_ros.robots.urdf import attribute, matrix_from_rpy, number, parse_urdf, vector

Colour = tuple[float, float, float, float]
GREY: Colour = (0.7, 0.7, 0.7, 1.0)


@dataclasses.dataclass(frozen=True)
class Visual:
    """One shape of a link.

    Attributes:
        link: that it belongs to.
        kind: box, cylinder, sphere or mesh.
        size: full extents of a box; radius and length of a cylinder; radius of a sphere; scale of
            a mesh; m.
        rotation: (3, 3) in the link's frame. translation: (3,) m.
        colour: red, green, blue, alpha in [0, 1]; None: a mesh has its own.
        file: of a mesh, as the URDF names it.
    """

    link: str
    kind: Literal["box", "cylinder", "sphere", "mesh"]
    size: tuple[float, ...]
    rotation: Array
    translation: Array
    colour: Colour | None
    file: str = ""


def parse_visuals(text: str, file: str) -> tuple[Visual, ...]:
    """Return the visual shapes of all links of a URDF.

    Raises:
        RobotError: the URDF cannot be read, or a shape is incomplete or unknown.
    """
    parse_urdf(text, file)
    root = ElementTree.fromstring(text)
    materials = {}
    for element in root.iter("material"):
        colour = element.find("color")
        if colour is not None:
            name = element.get("name", "")
            materials[name] = _colour(colour, file, f"material '{name}'")
    found = []
    for link in root.findall("link"):
        for visual in link.findall("visual"):
            found.append(_visual(visual, link.get("name", ""), materials, file))
    return tuple(found)


def _visual(
    element: ElementTree.Element, link: str, materials: dict[str, Colour], file: str
) -> Visual:
    where = f"a <visual> of link '{link}'"
    origin, material = element.find("origin"), element.find("material")
    rotation = matrix_from_rpy(vector(origin, "rpy", "0 0 0", file, where))
    translation = vector(origin, "xyz", "0 0 0", file, where)
    colour = None
    if material is not None:
        own = material.find("color")
        named = materials.get(material.get("name", ""))
        colour = named if own is None else _colour(own, file, where)
    shapes = list(element.iterfind("geometry/*"))
    if len(shapes) != 1:
        raise RobotError(f"{file}: {where} has {len(shapes)} shapes", expected="one")
    shape = shapes[0]
    if shape.tag == "mesh":
        size = tuple(vector(shape, "scale", "1 1 1", file, where).tolist())
        path = attribute(shape, "filename", file, where)
        return Visual(link, "mesh", size, rotation, translation, colour, path)
    if shape.tag == "box":
        size = tuple(vector(shape, "size", "", file, where).tolist())
        return Visual(link, "box", size, rotation, translation, colour or GREY)
    if shape.tag == "cylinder":
        size = (_length(shape, "radius", file, where), _length(shape, "length", file, where))
        return Visual(link, "cylinder", size, rotation, translation, colour or GREY)
    if shape.tag == "sphere":
        size = (_length(shape, "radius", file, where),)
        return Visual(link, "sphere", size, rotation, translation, colour or GREY)
    raise RobotError(
        f"{file}: {where} is a <{shape.tag}>", expected="box | cylinder | sphere | mesh"
    )


def _length(element: ElementTree.Element, name: str, file: str, where: str) -> float:
    return number(attribute(element, name, file, where), file, where)


def _colour(element: ElementTree.Element, file: str, where: str) -> Colour:
    values = [number(word, file, where) for word in element.get("rgba", "").split()]
    if len(values) != 4:
        raise RobotError(
            f"{file}: {where} has rgba='{element.get('rgba')}'", expected="four numbers"
        )
    return values[0], values[1], values[2], values[3]
