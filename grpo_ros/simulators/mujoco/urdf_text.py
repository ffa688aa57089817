"""A robot's URDF as MuJoCo can read it, mesh files included."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from grpo_ros.errors import RobotError
from grpo_ros.robots.meshes import mesh_path
from grpo_ros.robots.robot import Robot
from grpo_ros.robots.urdf import attribute

COMPILER = (
    '<mujoco><compiler discardvisual="false" fusestatic="false" strippath="false"/></mujoco>'
)
FORMATS = (".stl", ".obj", ".msh")
"""Of mesh files that MuJoCo reads."""


def urdf_text(robot: Robot) -> tuple[str, dict[str, bytes]]:
    """Return the text of a robot's URDF, and its mesh files' content by the names that it gives.

    Every file has a name of its own, since MuJoCo tells meshes apart by the last part of their
    file's name alone. What is only seen and of a format that MuJoCo does not read is left out. A
    URDF that says itself where MuJoCo finds its files (meshdir, assetdir) is left as it is.

    Raises:
        RobotError: a mesh file is not there, or one that collides is of another format.
    """
    text = robot.urdf
    if "<mujoco>" not in text:
        end = text.rindex("</robot>")
        text = text[:end] + COMPILER + text[end:]
    root = ElementTree.fromstring(text)
    compiler = root.find("mujoco/compiler")
    says_where = compiler is not None and {"meshdir", "assetdir"} & set(compiler.keys())
    if says_where or root.find("link/*/geometry/mesh") is None:
        return text, {}
    names: dict[Path, str] = {}
    for link in root.findall("link"):
        for shape in [*link.findall("visual"), *link.findall("collision")]:
            mesh = shape.find("geometry/mesh")
            if mesh is None:
                continue
            where = f"a <{shape.tag}> of link '{link.get('name')}'"
            name = attribute(mesh, "filename", robot.urdf_path.name, where)
            if Path(name).suffix.lower() in FORMATS:
                path = mesh_path(name, robot.urdf_path)
                alias = names.setdefault(path, f"{len(names)}_{path.name}")
                mesh.set("filename", alias)
            elif shape.tag == "visual":
                link.remove(shape)
            else:
                raise RobotError(
                    f"{robot.urdf_path}: {where} is '{name}', which MuJoCo does not read",
                    expected=" | ".join(FORMATS),
                    remedy="convert it, or give the link a box, cylinder or sphere instead",
                )
    files = {alias: path.read_bytes() for path, alias in names.items()}
    return ElementTree.tostring(root, encoding="unicode"), files
