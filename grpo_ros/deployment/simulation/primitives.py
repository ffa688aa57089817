"""Primitives by URI: what can be spawned into a running simulation.

    primitive://box?size=0.04,0.04,0.04&mass=0.08&colour=0.8,0.2,0.1
    primitive://cylinder?radius=0.02&height=0.1&motion=kinematic
    primitive://sphere?radius=0.03&name=ball

Lengths in m, along the edges of a box; mass in kg; colour is red, green, blue and perhaps alpha in
[0, 1]. A dynamic body is moved by physics, a kinematic one stands where it is put.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.errors import nearest
from grpo_ros.tasks.base import Body

SCHEME = "primitive"
DIMENSIONS = {"box": ("size",), "cylinder": ("radius", "height"), "sphere": ("radius",)}
"""Shape -> the keys that have to be given."""
OPTIONS = ("name", "mass", "friction", "motion", "colour")
SPAWNABLES = {
    "box": "primitive://box?size=0.04,0.04,0.04",
    "cylinder": "primitive://cylinder?radius=0.02&height=0.06",
    "sphere": "primitive://sphere?radius=0.025",
}
"""Shape -> a URI that spawns one; every value can be changed, and every option added."""
LONGEST_M, HEAVIEST_KG, ROUGHEST = 10.0, 1000.0, 10.0
PARSE_ERROR = "RESOURCE_PARSE_ERROR"


def parse_primitive(text: str) -> Body:
    """Return the body that a URI describes; its name is empty where the URI gives none.

    Raises:
        Refusal: another kind of resource, or a key or value that is not usable; names it.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme != SCHEME:
        raise Refusal(
            "UNSUPPORTED_FORMAT", f"resource '{text[:80]}'", expected=f"{SCHEME}://SHAPE?..."
        )
    shape, _, query = rest.partition("?")
    if shape not in DIMENSIONS:
        raise Refusal(PARSE_ERROR, f"shape '{shape}'", remedy=nearest(shape, DIMENSIONS))
    values = _values(query, shape)
    given: dict[str, Any] = {"name": values.get("name", ""), "shape": shape}
    given["size"] = _size(shape, values)
    for key, highest in (("mass", HEAVIEST_KG), ("friction", ROUGHEST)):
        if key in values:
            given[key] = _numbers(key, values[key], 1, highest)[0]
    if "colour" in values:
        given["colour"] = _colour(values["colour"])
    if "motion" in values:
        if values["motion"] not in ("dynamic", "kinematic"):
            raise Refusal(
                PARSE_ERROR, f"motion '{values['motion']}'", expected="dynamic or kinematic"
            )
        given["motion"] = values["motion"]
    return Body(**given)


def half_extents(body: Body) -> tuple[float, float, float]:
    """Return half the edges of the box around a body, along its own axes, in m."""
    if body.shape == "box":
        return (body.size[0], body.size[1], body.size[2])
    if body.shape == "cylinder":
        return (body.size[0], body.size[0], body.size[1])
    return (body.size[0], body.size[0], body.size[0])


def _values(query: str, shape: str) -> dict[str, str]:
    known = (*DIMENSIONS[shape], *OPTIONS)
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            raise Refusal(PARSE_ERROR, f"{shape}: key '{key}'", remedy=nearest(key, known))
        if key in values:
            raise Refusal(PARSE_ERROR, f"{shape}: key '{key}' is given twice")
        values[key] = value
    missing = [key for key in DIMENSIONS[shape] if key not in values]
    if missing:
        raise Refusal(
            PARSE_ERROR, f"{shape}: no '{missing[0]}'", expected=f"e.g. {SPAWNABLES[shape]}"
        )
    return values


def _size(shape: str, values: dict[str, str]) -> tuple[float, ...]:
    """Return the size as `Body` has it."""
    if shape == "box":
        return tuple(0.5 * edge for edge in _numbers("size", values["size"], 3, LONGEST_M))
    radius = _numbers("radius", values["radius"], 1, LONGEST_M)[0]
    if shape == "sphere":
        return (radius,)
    return radius, 0.5 * _numbers("height", values["height"], 1, LONGEST_M)[0]


def _colour(text: str) -> tuple[float, ...]:
    num = 4 if text.count(",") == 3 else 3
    colour = _numbers("colour", text, num, 1.0, is_allowed=lambda value: value >= 0.0)
    return (*colour, 1.0)[:4]


def _numbers(
    key: str,
    text: str,
    num: int,
    highest: float,
    is_allowed: Callable[[float], bool] = lambda value: value > 0.0,
) -> tuple[float, ...]:
    """Return numbers separated by commas; by default they have to be positive."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    is_sound = all(math.isfinite(v) and v <= highest and is_allowed(v) for v in values)
    if len(values) != num or not is_sound:
        what = "a number" if num == 1 else f"{num} numbers"
        raise Refusal(
            PARSE_ERROR, f"{key} = '{text}'", expected=f"{what} above 0, at most {highest:g}"
        )
    return values


def described(body: Body) -> str:
    """Return what a body is, in words."""
    edges = " x ".join(f"{2000.0 * half:g}" for half in half_extents(body))
    mass = f", {body.mass:g} kg" if body.motion == "dynamic" else ""
    return f"{body.motion} {body.shape}, {edges} mm{mass}"


def named(body: Body, name: str) -> Body:
    """Return the body under a name."""
    return dataclasses.replace(body, name=name)
