"""Reads the kinematic part of a URDF: links, joints, limits; every mistake named."""

from __future__ import annotations

import dataclasses
import math
from xml.etree import ElementTree

import numpy as np

from grpo_ros.elementary import Array
from grpo_ros.errors import RobotError, nearest

JOINT_TYPES = ("revolute", "continuous", "prismatic", "fixed")


@dataclasses.dataclass(frozen=True)
class UrdfJoint:
    """One joint of a URDF.

    Attributes:
        name: of the joint.
        kind: revolute, continuous, prismatic or fixed.
        parent, child: links.
        rotation: (3, 3) of the joint's frame in the parent link.
        translation: (3,) of the joint's frame in the parent link, m.
        axis: (3,) unit vector in the joint's frame; zero where fixed.
        lower, upper: position limits, rad or m; infinite where continuous.
        velocity, effort: limits, rad/s or m/s and N m or N; infinite where it has none.
        mimic: name of the joint that it follows; empty if none.
        multiplier, offset: it stands at multiplier x + offset where that joint stands at x.
    """

    name: str
    kind: str
    parent: str
    child: str
    rotation: Array
    translation: Array
    axis: Array
    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf
    effort: float = math.inf
    mimic: str = ""
    multiplier: float = 1.0
    offset: float = 0.0

    @property
    def is_moving(self) -> bool:
        """Whether the joint has a degree of freedom."""
        return self.kind != "fixed"

    def displacement(self, position: float) -> tuple[Array, Array]:
        """Return rotation (3, 3) and translation (3,) of the child in the joint's frame.

        The rotation is I + sin q [a]x + (1 - cos q) [a]x^2 about the axis a (Rodrigues).
        """
        if self.kind == "prismatic" or not self.is_moving:
            return np.eye(3), self.axis * position
        x, y, z = self.axis
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        sine, cosine = math.sin(position), math.cos(position)
        return np.eye(3) + sine * cross + (1.0 - cosine) * (cross @ cross), np.zeros(3)


@dataclasses.dataclass(frozen=True)
class Urdf:
    """Links and joints of a URDF, a tree; `file` is for messages."""

    file: str
    name: str
    links: tuple[str, ...]
    joints: tuple[UrdfJoint, ...]

    @property
    def root(self) -> str:
        """The link that hangs on no other."""
        children = {joint.child for joint in self.joints}
        return next(link for link in self.links if link not in children)

    def joint(self, name: str) -> UrdfJoint:
        """Return a named joint.

        Raises:
            RobotError: there is none of that name.
        """
        for joint in self.joints:
            if joint.name == name:
                return joint
        raise RobotError(
            f"{self.file}: no joint '{name}'",
            expected="a joint of the URDF",
            remedy=nearest(name, [joint.name for joint in self.joints]),
        )

    def chain(self, base: str, tip: str) -> tuple[UrdfJoint, ...]:
        """Return the joints from link `base` to link `tip`, in order.

        Raises:
            RobotError: a link is unknown, or the tip does not hang on the base.
        """
        for link in (base, tip):
            if link not in self.links:
                raise RobotError(
                    f"{self.file}: no link '{link}'",
                    expected="a link of the URDF",
                    remedy=nearest(link, self.links),
                )
        by_child = {joint.child: joint for joint in self.joints}
        joints: list[UrdfJoint] = []
        link = tip
        while link != base:
            if link not in by_child:
                raise RobotError(
                    f"{self.file}: link '{tip}' cannot be reached from '{base}'",
                    expected=f"a chain of joints from '{base}' to '{tip}'",
                    remedy=f"following the parents of '{tip}' ends at '{link}'",
                )
            joints.append(by_child[link])
            link = by_child[link].parent
        return tuple(reversed(joints))


def parse_urdf(text: str, file: str) -> Urdf:
    """Return the links and joints of a URDF text.

    Args:
        text: of the URDF. file: for messages.

    Raises:
        RobotError: not XML, a document type or entity, an incomplete or non-finite joint, or
            links that are no tree.
    """
    # A URDF needs neither, and entities can be made to expand without end.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise RobotError(
            f"{file}: has a document type or entity declaration",
            expected="a plain URDF",
            remedy="remove <!DOCTYPE ...> and <!ENTITY ...>",
        )
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as problem:
        raise RobotError(
            f"{file}: not XML ({problem})",
            expected="a URDF",
            remedy="a xacro file has to be expanded first: xacro FILE.xacro > FILE.urdf",
        ) from problem
    if root.tag != "robot":
        raise RobotError(
            f"{file}: root element <{root.tag}>", expected="<robot>", remedy="give a URDF"
        )
    links = tuple(attribute(link, "name", file, "link") for link in root.findall("link"))
    joints = tuple(_joint(element, file) for element in root.findall("joint"))
    _check_names("link", links, file)
    _check_names("joint", tuple(joint.name for joint in joints), file)
    for joint in joints:
        for link in (joint.parent, joint.child):
            if link not in links:
                raise RobotError(
                    f"{file}: joint '{joint.name}' names link '{link}'",
                    expected="a link of the URDF",
                    remedy=nearest(link, links),
                )
    _check_names("child link of two joints", tuple(joint.child for joint in joints), file)
    _check_tree(links, joints, file)
    return Urdf(file, root.get("name", ""), links, joints)


def _check_names(kind: str, names: tuple[str, ...], file: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise RobotError(f"{file}: {kind} '{name}' appears twice", expected="unique names")


def _check_tree(links: tuple[str, ...], joints: tuple[UrdfJoint, ...], file: str) -> None:
    """Raise RobotError unless one link hangs on no other, and all others on it.

    No link is the child of two joints: what is not reached from a root is or hangs on a loop.
    """
    children = {joint.child for joint in joints}
    roots = [link for link in links if link not in children]
    if len(roots) != 1:
        raise RobotError(
            f"{file}: {len(roots)} links hang on no other ({', '.join(roots)})",
            expected="one, the root",
            remedy="join the links by fixed joints; of joints in a loop, leave one out",
        )
    reached = set(roots)
    for _ in joints:
        reached |= {joint.child for joint in joints if joint.parent in reached}
    if lost := [link for link in links if link not in reached]:
        raise RobotError(
            f"{file}: joints make a loop, which holds {', '.join(lost)}",
            expected=f"links that all hang on '{roots[0]}'",
            remedy="leave out one of the loop's joints, and join it to the root",
        )


def _joint(element: ElementTree.Element, file: str) -> UrdfJoint:
    name = attribute(element, "name", file, "joint")
    where = f"joint '{name}'"
    kind = attribute(element, "type", file, where)
    if kind not in JOINT_TYPES:
        raise RobotError(
            f"{file}: {where} has type '{kind}'",
            expected=" | ".join(JOINT_TYPES),
            remedy="split other joints into these",
        )
    parent = attribute(child_element(element, "parent", file, where), "link", file, where)
    child = attribute(child_element(element, "child", file, where), "link", file, where)
    origin = element.find("origin")
    translation = vector(origin, "xyz", "0 0 0", file, where)
    rotation = matrix_from_rpy(vector(origin, "rpy", "0 0 0", file, where))
    if kind == "fixed":
        return UrdfJoint(name, kind, parent, child, rotation, translation, np.zeros(3))
    axis = vector(element.find("axis"), "xyz", "1 0 0", file, where)
    length = math.sqrt(float(axis @ axis))
    if length < 1e-6:
        raise RobotError(f"{file}: {where} has a zero axis", expected="a unit vector")
    limits = _limits(element, kind, file, where)
    follows = _mimic(element, file, where)
    return UrdfJoint(
        name, kind, parent, child, rotation, translation, axis / length, *limits, *follows
    )


def _mimic(element: ElementTree.Element, file: str, where: str) -> tuple[str, float, float]:
    """Return which joint it follows (empty: none), multiplier and offset."""
    mimic = element.find("mimic")
    if mimic is None:
        return "", 1.0, 0.0
    multiplier = number(mimic.get("multiplier", "1"), file, where)
    offset = number(mimic.get("offset", "0"), file, where)
    return attribute(mimic, "joint", file, where), multiplier, offset


def _limits(
    element: ElementTree.Element, kind: str, file: str, where: str
) -> tuple[float, float, float, float]:
    """Return lower, upper, velocity and effort."""
    limit = element.find("limit")
    if limit is None:
        if kind == "continuous":  # only these may lack it, as a free wheel does
            return _UNLIMITED
        raise no_limit(file, where)
    names = ["velocity", "effort"] if kind == "continuous" else _LIMITS
    values = {name: number(attribute(limit, name, file, where), file, where) for name in names}
    lower, upper = values.get("lower", -math.inf), values.get("upper", math.inf)
    if not lower < upper:
        raise RobotError(
            f"{file}: {where} has limits [{lower}, {upper}]", expected="lower < upper"
        )
    if values["velocity"] <= 0.0 or values["effort"] <= 0.0:
        raise RobotError(
            f"{file}: {where} has velocity {values['velocity']}, effort {values['effort']}",
            expected="both > 0",
        )
    return lower, upper, values["velocity"], values["effort"]


def no_limit(file: str, where: str) -> RobotError:
    """Return what is raised where a joint that needs limits has none."""
    return RobotError(
        f"{file}: {where} has no <limit>",
        expected='<limit lower="..." upper="..." velocity="..." effort="..."/>',
        remedy="a joint without limits cannot be commanded safely",
    )


_LIMITS = ["lower", "upper", "velocity", "effort"]
_UNLIMITED = (-math.inf, math.inf, math.inf, math.inf)


def matrix_from_rpy(rpy: Array) -> Array:
    """Return R = Rz(yaw) Ry(pitch) Rx(roll) (3, 3), as URDF defines it.

    Entries within 1e-15 of -1, 0 and 1 are set to them: URDFs write quarter turns in decimals.
    """
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    roll = np.array([[1.0, 0.0, 0.0], [0.0, cr, -sr], [0.0, sr, cr]])
    pitch = np.array([[cp, 0.0, sp], [0.0, 1.0, 0.0], [-sp, 0.0, cp]])
    yaw = np.array([[cy, -sy, 0.0], [sy, cy, 0.0], [0.0, 0.0, 1.0]])
    matrix: Array = yaw @ pitch @ roll
    nearest_integer = np.rint(matrix)
    return np.where(np.abs(matrix - nearest_integer) < 1e-15, nearest_integer, matrix)


def child_element(
    element: ElementTree.Element, tag: str, file: str, where: str
) -> ElementTree.Element:
    """Return a required child, or raise RobotError."""
    child = element.find(tag)
    if child is None:
        raise RobotError(f"{file}: {where} has no <{tag}>", expected=f'<{tag} link="..."/>')
    return child


def attribute(element: ElementTree.Element, name: str, file: str, where: str) -> str:
    """Return a required attribute, or raise RobotError."""
    value = element.get(name)
    if value is None:
        raise RobotError(
            f"{file}: <{element.tag}> of {where} has no '{name}'", expected=f'{name}="..."'
        )
    return value


def vector(
    element: ElementTree.Element | None, name: str, default: str, file: str, where: str
) -> Array:
    """Return an attribute of three numbers (3,), or raise RobotError."""
    text = default if element is None else element.get(name, default)
    values = [number(word, file, where) for word in text.split()]
    if len(values) != 3:
        raise RobotError(f"{file}: {where} has {name}='{text}'", expected="three numbers")
    return np.array(values)


def number(text: str, file: str, where: str) -> float:
    """Return a finite number, or raise RobotError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RobotError(f"{file}: {where} has the value '{text}'", expected="a finite number")
    return value
