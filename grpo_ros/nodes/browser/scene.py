"""The scene in three dimensions: a robot, bodies and group paths on a viser server."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grpo_ros.errors import RobotError
from grpo_ros.extras import import_extra
from grpo_ros.nodes.browser.marker_scene import Colours, Lines, Shape, Text
from grpo_ros.nodes.shared.link_transforms import LinkTransforms, Transform, quaternion_of
from grpo_ros.robots.urdf import parse_urdf
from grpo_ros.robots.visuals import GREY, Visual, parse_visuals

FILE = "robot_description"
LINE_PIXELS = 2.2
"""Of what is not faint at all; lines cannot be transparent, so the fainter are thinner."""
GAMMA = 2.2
FIELD_OF_VIEW = 0.75
"""Vertical, rad."""
VIEW = (0.60, -0.98, 0.56)
"""From what is looked at to the camera, in shares of the scene's size."""
SEGMENTS = 48
LOWER = 0.06
"""By which share of the size the camera looks below the middle: bodies stand on a table."""
HIDDEN_M, BELOW_M = 1e-4, 2e-3


class RobotScene:
    """The links of a URDF as frames that hang on one another.

    Args:
        server: viser's.
        urdf: its text.
        resolve: a mesh file's name in a URDF -> its path.

    Raises:
        RobotError: the URDF cannot be read.

    Attributes:
        root: the link that hangs on no other; it stands at the scene's origin.
        problems: meshes that cannot be shown, and why.
    """

    def __init__(self, server: Any, urdf: str, resolve: Any = Path) -> None:
        parsed, visuals = parse_urdf(urdf, FILE), parse_visuals(urdf, FILE)
        self._server, self._resolve = server, resolve
        self.problems: list[str] = []
        self._parents = parents = {joint.child: joint.parent for joint in parsed.joints}
        (self.root, *_) = [link for link in parsed.links if link not in parents]
        self._chain = LinkTransforms(urdf, FILE)
        self._paths = {link: _path(link, parents) for link in parsed.links}
        self._placed: dict[str, list[float]] = {}
        with server.atomic():
            self._frames = {
                link: server.scene.add_frame(path, show_axes=False)
                for link, path in sorted(self._paths.items(), key=lambda pair: len(pair[1]))
            }
            for index, visual in enumerate(visuals):
                self._add(f"{self._paths[visual.link]}/visual_{index}", visual)
            self.place([*self._chain.fixed(), *self._chain.moving([], np.zeros(0))])

    def frame(self, link: str) -> Any:
        """Return viser's handle of a link: `position` and `wxyz` in its parent."""
        return self._frames[link]

    def by_joints(self, names: Sequence[str], positions: Sequence[float]) -> list[Transform]:
        """Return where joint positions, rad or m, put links; joints not named stand at 0."""
        return self._chain.moving(names, np.array(positions))

    def place(self, transforms: Iterable[Transform]) -> None:
        """Place links in their parents; transforms between other frames are passed over."""
        for parent, child, values in transforms:
            frame = self._frames.get(child)
            if frame is None or self._parents.get(child) != parent:
                continue
            if self._placed.get(child) == values:
                continue
            x, y, z, qx, qy, qz, qw = self._placed[child] = values
            frame.position, frame.wxyz = (x, y, z), (qw, qx, qy, qz)

    def remove(self) -> None:
        """Take the robot away."""
        self._frames[self.root].remove()

    def _add(self, path: str, visual: Visual) -> None:
        x, y, z, w = quaternion_of(visual.rotation).tolist()
        place = {"position": visual.translation, "wxyz": (w, x, y, z)}
        scene = self._server.scene
        if visual.kind == "mesh":
            self._add_mesh(path, visual, place)
            return
        red, green, blue, opacity = visual.colour or GREY
        colour = tuple(round(255 * each) for each in (red, green, blue))
        _add_primitive(scene, path, visual.kind, visual.size, colour, opacity, place)

    def _add_mesh(self, path: str, visual: Visual, place: Mapping[str, Any]) -> None:
        trimesh = import_extra("trimesh", "the browser view", extra="browser")
        try:
            mesh = trimesh.load(self._resolve(visual.file), force="mesh")
            mesh.apply_scale(visual.size)
        except Exception as problem:  # whatever a stranger's file makes of its reader
            self.problems.append(f"{visual.file}: {problem}")
            return
        if visual.colour is not None:
            mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=visual.colour)
        self._server.scene.add_mesh_trimesh(path, mesh, **place)


class BodyScene:
    """Primitives, which come and go and move.

    Args:
        server: viser's. root: path of what they hang on.
    """

    def __init__(self, server: Any, root: str = "/bodies") -> None:
        self._server, self._root = server, root
        self._shown: dict[str, tuple[Shape, Any]] = {}
        self.is_visible = True

    def show(self, shapes: Sequence[Shape]) -> None:
        """Show these and no others."""
        wanted = {shape.name: shape for shape in shapes} if self.is_visible else {}
        for name in self._shown.keys() - wanted.keys():
            self._shown.pop(name)[1].remove()
        for name, shape in wanted.items():
            if name not in self._shown or _look(self._shown[name][0]) != _look(shape):
                self._shown[name] = shape, self._add(shape)
                continue
            old, handle = self._shown[name]
            if old != shape:
                handle.position, handle.wxyz = shape.position, shape.wxyz
            self._shown[name] = shape, handle

    def _add(self, shape: Shape) -> Any:
        place = {"position": shape.position, "wxyz": shape.wxyz}
        x, y, z = shape.size
        size = {"box": (x, y, z), "cylinder": (x / 2, z), "sphere": (x / 2,)}[shape.kind]
        path = f"{self._root}/{shape.name}"
        scene = self._server.scene
        return _add_primitive(scene, path, shape.kind, size, shape.colour, shape.opacity, place)


class PathScene:
    """Group paths: lines, and texts where groups begin.

    Args:
        server: viser's. root: path of what they hang on.
    """

    def __init__(self, server: Any, root: str = "/group_paths") -> None:
        self._server, self._root = server, root
        self._lines: list[Any] = []
        self._texts: list[Any] = []

    def show(self, lines: Sequence[Lines], texts: Sequence[Text]) -> None:
        """Show these and no others."""
        for handle in [*self._lines[len(lines) :], *self._texts]:
            handle.remove()
        self._lines = [
            self._server.scene.add_line_segments(
                f"{self._root}/{index}",
                each.points,
                linear(each.colours),
                thickness=LINE_PIXELS * each.alpha,
                thickness_units="screen",
            )
            for index, each in enumerate(lines)
        ]
        self._texts = [
            self._server.scene.add_label(
                f"{self._root}_texts/{index}",
                each.text,
                position=each.position,
                font_screen_scale=0.8,
                anchor="bottom-center",
            )
            for index, each in enumerate(texts)
        ]


def linear(colours: Colours) -> Colours:
    """Return what the client shows as these colours: it takes those of lines as linear ones."""
    light = np.power(colours / 255.0, GAMMA)
    return np.rint(255.0 * light).astype(np.uint8)


def add_floor(server: Any, shapes: Sequence[Shape]) -> None:
    """Put a grid below all shapes."""
    low = min([0.0, *(shape.position[2] - shape.size[2] / 2.0 for shape in shapes)])
    server.scene.add_grid(
        "/floor",
        infinite_grid=True,
        cell_size=0.1,
        section_size=0.5,
        cell_color=(64, 72, 84),
        section_color=(88, 98, 112),
        fade_distance=6.0,
        position=(0.0, 0.0, low - BELOW_M),
    )


def look_at_bodies(server: Any, shapes: Sequence[Shape]) -> None:
    """Point the camera of clients that are there, and that will come, at a robot and its bodies.

    The robot's base is at the origin.
    """
    centre, size = extent(shapes)
    centre = centre - (0.0, 0.0, LOWER * size)
    position = centre + size * np.array(VIEW)
    cameras = [server.initial_camera, *(c.camera for c in server.get_clients().values())]
    for camera in cameras:
        camera.position, camera.look_at, camera.fov = position, centre, FIELD_OF_VIEW


def extent(shapes: Sequence[Shape]) -> tuple[Any, float]:
    """Return the middle (3,) of the origin and all shapes, and their size, m."""
    corners = [np.array((0.0, 0.0, 0.0)), np.array((0.0, 0.0, 0.6))]
    for shape in shapes:
        half = np.array(shape.size) / 2.0
        corners += [np.array(shape.position) - half, np.array(shape.position) + half]
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    return (low + high) / 2.0, max(1.0, math.dist(low, high))


def _add_primitive(
    scene: Any,
    path: str,
    kind: str,
    size: Sequence[float],
    colour: Sequence[int],
    opacity: float,
    place: Mapping[str, Any],
) -> Any:
    """Add a box by its extents, a cylinder by radius and length, or a sphere by its radius."""
    look = {"color": tuple(colour), "opacity": None if opacity >= 1.0 else opacity, **place}
    sizes = [max(HIDDEN_M, float(each)) for each in size]
    if kind == "box":
        return scene.add_box(path, dimensions=tuple(sizes), **look)
    if kind == "cylinder":
        radius, height = sizes
        return scene.add_cylinder(path, radius, height, radial_segments=SEGMENTS, **look)
    return scene.add_icosphere(path, sizes[0], **look)


def _look(shape: Shape) -> tuple[Any, ...]:
    return shape.kind, shape.size, shape.colour, shape.opacity


def _path(link: str, parents: Mapping[str, str]) -> str:
    """Return the path of a link: its ancestors from the root, then itself.

    Raises:
        RobotError: the joints go round in a circle.
    """
    names = [link]
    while names[-1] in parents:
        names.append(parents[names[-1]])
        if len(names) > len(parents) + 1:
            raise RobotError(f"{FILE}: the joints of link '{link}' go round in a circle")
    return "/robot/" + "/".join(reversed(names))
