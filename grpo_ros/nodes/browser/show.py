"""What is shown: the newest of everything that came, put on the page where it has changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grpo_ros.errors import RobotError
from grpo_ros.nodes.browser.marker_scene import MarkerScene
from grpo_ros.nodes.browser.panel import panel_html
from grpo_ros.nodes.browser.run_state import RunState
from grpo_ros.nodes.browser.scene import (
    BodyScene,
    PathScene,
    RobotScene,
    add_floor,
    look_at_bodies,
)
from grpo_ros.nodes.shared.link_transforms import Transform

PANEL_S = 0.5
JPEG_QUALITY = 80


class Show:
    """Holds the newest of everything, and puts what has changed on the page.

    `take_*` and `update` belong to one thread. Nothing is sent while nobody looks.

    Args:
        server: of `open_page`.
        resolve: a mesh file's name in a URDF -> its path.

    Attributes:
        state: what is known of the run.
        problem: why the robot cannot be shown; empty if it can.
    """

    def __init__(self, server: Any, resolve: Any = Path) -> None:
        self.state = RunState()
        self.bodies, self.paths = MarkerScene(), MarkerScene()
        self.robot: RobotScene | None = None
        self.problem = ""
        self._server, self._resolve = server, resolve
        self._urdf = ""
        self._joints: tuple[Sequence[str], Sequence[float]] | None = None
        self._links: dict[str, Transform] = {}
        self._picture: Any = None
        self._changed: set[str] = set()
        self._panel_s, self._html, self._framed = -PANEL_S, "", ""
        self._make_panel()
        self._body_scene, self._path_scene = BodyScene(server), PathScene(server)

    def _make_panel(self) -> None:
        gui = self._server.gui
        self._panel = gui.add_html("")
        self._image: Any = None
        with gui.add_folder("Scene"):
            self._with_paths = gui.add_checkbox("Group paths", True)
            self._with_rates = gui.add_checkbox("Their success", False)
            self._with_bodies = gui.add_checkbox("Objects", True)
            home = gui.add_button("Look at the robot")
        for box in (self._with_paths, self._with_rates, self._with_bodies):
            box.on_update(lambda _: self._changed.update(("paths", "bodies")))
        home.on_click(lambda _: look_at_bodies(self._server, self.bodies.shapes()))

    # ---------------------------------------------------------------- what comes

    def take_urdf(self, urdf: str) -> None:
        """Take the robot's description."""
        if urdf != self._urdf:
            self._urdf = urdf
            self._changed.add("urdf")

    def take_joints(self, names: Sequence[str], positions: Sequence[float]) -> None:
        """Take joint positions, rad or m; transforms of links stand above them."""
        self._joints = names, positions

    def take_links(self, transforms: Sequence[Transform]) -> None:
        """Take transforms between links, and others."""
        self._links.update((child, (parent, child, at)) for parent, child, at in transforms)

    def take_bodies(self, message: Any) -> None:
        """Take a MarkerArray of the scene's primitives."""
        self.bodies.take(message)
        self._changed.add("bodies")

    def take_paths(self, message: Any) -> None:
        """Take a MarkerArray of group paths."""
        self.paths.take(message)
        self._changed.add("paths")

    def take_picture(self, pixels: Any) -> None:
        """Take a camera's (H, W, 3) uint8 picture."""
        self._picture = pixels
        self._changed.add("picture")

    # ---------------------------------------------------------------- what is shown

    @property
    def is_watched(self) -> bool:
        """Whether a browser is connected."""
        return bool(self._server.get_clients())

    def update(self, now_s: float) -> None:
        """Put on the page what has changed, if anybody looks."""
        if not self.is_watched:
            return
        changed, self._changed = self._changed, set()
        with self._server.atomic():
            if "urdf" in changed:
                self._show_robot()
            if self.robot is not None:
                self._place_robot(self.robot)
            if "bodies" in changed:
                self._show_bodies()
            if "paths" in changed:
                self._show_paths()
        if "picture" in changed:
            self._show_picture()
        if now_s - self._panel_s >= PANEL_S:
            self._panel_s = now_s
            self._show_panel(now_s)

    def _show_robot(self) -> None:
        if self.robot is not None:
            self.robot.remove()
            self.robot = None
        try:
            self.robot = RobotScene(self._server, self._urdf, self._resolve)
            self.problem = "; ".join(self.robot.problems)
        except RobotError as problem:
            self.problem = str(problem)

    def _place_robot(self, robot: RobotScene) -> None:
        links = robot.by_joints(*self._joints) if self._joints is not None else []
        robot.place({**{link[1]: link for link in links}, **self._links}.values())

    def _show_bodies(self) -> None:
        shapes = self.bodies.shapes()
        self._body_scene.is_visible = self._with_bodies.value
        self._body_scene.show(shapes)
        names = " ".join(sorted(shape.name for shape in shapes))
        if names != self._framed:
            self._framed = names
            add_floor(self._server, shapes)
            look_at_bodies(self._server, shapes)

    def _show_paths(self) -> None:
        lines = self.paths.lines() if self._with_paths.value else []
        texts = self.paths.texts() if self._with_rates.value else []
        self._path_scene.show(lines, texts)

    def _show_picture(self) -> None:
        pixels = np.ascontiguousarray(self._picture)
        if self._image is None:
            self._image = self._server.gui.add_image(
                pixels, label="Camera", format="jpeg", jpeg_quality=JPEG_QUALITY
            )
        else:
            self._image.image = pixels

    def _show_panel(self, now_s: float) -> None:
        html = panel_html(self.state, now_s, self.problem)
        if html != self._html:
            self._html = self._panel.content = html
