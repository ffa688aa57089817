"""Mesh files of a URDF: where they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from grpo_ros.errors import RobotError
from grpo_ros.robots.urdf import attribute


def mesh_path(name: str, urdf: Path | None = None) -> Path:
    """Return where a mesh file of a URDF is: package://PACKAGE/PATH, file://PATH or a path.

    A path is relative to the URDF's folder. A package is a folder of that name beside or above the
    URDF, else the installed one, so that a copy beside the URDF counts with and without ROS.

    Args:
        name: of the file, as the URDF gives it.
        urdf: file that names it; None: a text without one, as a robot_description.

    Raises:
        RobotError: there is no such file.
    """
    scheme, is_given, rest = name.partition("://")
    remedy, candidates = "correct its name", list[Path]()
    if scheme == "package" and is_given:
        package, _, inside = rest.partition("/")
        beside = [] if urdf is None else [parent / package for parent in urdf.parents]
        candidates = [folder / inside for folder in (*beside, *_installed(package))]
        remedy = f"put the folder '{package}' beside the URDF, or install and source the package"
    elif scheme == "file" or not is_given:
        folder = Path() if urdf is None else urdf.parent
        paths = (rest, unquote(rest)) if is_given else (name,)
        candidates = [folder / path for path in paths]
    for path in candidates:
        if path.is_file():
            return path
    raise RobotError(
        f"{urdf or 'robot_description'}: there is no mesh file '{name}'",
        expected="a path relative to the URDF, file://PATH, or package://PACKAGE/PATH",
        remedy=remedy,
    )


def with_mesh_paths(text: str, urdf: Path) -> tuple[str, list[Path]]:
    """Return a URDF's text with the whole path of every mesh file, and these paths.

    A text without meshes stays as it is.

    Args:
        text: of the URDF, parsed before. urdf: its file.

    Raises:
        RobotError: a mesh has no file name, or its file is not there.
    """
    paths: list[Path] = []

    def whole(name: str) -> str:
        paths.append(mesh_path(name, urdf))
        return str(paths[-1])

    return _renamed(text, urdf, whole), paths


def with_mesh_uris(text: str, urdf: Path) -> str:
    """Return a URDF's text with file:// URIs of its meshes, for nodes that have not its folder.

    A mesh whose file is not there keeps its name: it may be there where it is to be shown.

    Args:
        text: of the URDF, parsed before. urdf: its file.

    Raises:
        RobotError: a mesh has no file name.
    """

    def uri(name: str) -> str:
        try:
            return mesh_path(name, urdf).resolve().as_uri()
        except RobotError:
            return name

    return _renamed(text, urdf, uri)


def mesh_files(text: str, urdf: Path) -> list[Path]:
    """Return the mesh files of a URDF that are there, each once, in its order.

    Args:
        text: of the URDF, parsed before. urdf: its file.

    Raises:
        RobotError: a mesh has no file name.
    """
    meshes = ElementTree.fromstring(text).iter("mesh")
    found: list[Path] = []
    for name in dict.fromkeys(_file_name(mesh, urdf) for mesh in meshes):
        with contextlib.suppress(RobotError):
            found.append(mesh_path(name, urdf))
    return found


def _renamed(text: str, urdf: Path, rename: Callable[[str], str]) -> str:
    root = ElementTree.fromstring(text)
    meshes = list(root.iter("mesh"))
    for mesh in meshes:
        mesh.set("filename", rename(_file_name(mesh, urdf)))
    return ElementTree.tostring(root, encoding="unicode") if meshes else text


def _file_name(mesh: ElementTree.Element, urdf: Path) -> str:
    return attribute(mesh, "filename", urdf.name, "a mesh")


def _installed(package: str) -> list[Path]:
    """Return the share folder of an installed ROS package; none where there is no such package."""
    try:
        from ament_index_python.packages import (  # type: ignore[import-not-found, unused-ignore]
            get_package_share_directory,
        )
    except ImportError:
        return []
    try:
        return [Path(get_package_share_directory(package))]
    except (LookupError, ValueError):  # not installed, or no name that a package could have
        return []
