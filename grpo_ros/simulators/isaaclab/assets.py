"""Robots for Isaac Lab: a URDF converted to USD once, or a USD of the user's own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from grpo_ros.errors import MissingExtraError, RobotError
from grpo_ros.robots.meshes import with_mesh_paths
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.isaaclab import convert
from grpo_ros.simulators.isaaclab.app import has_module
from grpo_ros.simulators.isaaclab.convert import MARK

CONVERT_TIMEOUT_S = 180.0
USD, CONVERTED = (".usd", ".usda", ".usdc", ".usdz"), (".urdf", ".xml", ".mjcf")
REMOTE = ("omniverse://", "http://", "https://", "s3://", "omni:")


def robot_usd(robot: Robot, asset: str = "") -> Path:
    """Return a robot's USD; what is no USD is converted at first use and kept in the user's cache.

    Args:
        robot: whose URDF is converted where no other file is named.
        asset: a USD or MJCF file instead.

    Raises:
        MissingExtraError: Isaac Sim's importer is not installed.
        RobotError: there is no such file, a mesh file of it is not there, or the importer could
            not convert it.
    """
    refuse_remote(asset, "isaaclab.robot_asset")
    source = Path(asset).expanduser() if asset else robot.urdf_path
    if not source.is_file() or source.suffix not in (*USD, *CONVERTED):
        raise RobotError(
            f"isaaclab.robot_asset = '{asset}'", expected=f"a file {' '.join((*USD, *CONVERTED))}"
        )
    if source.suffix in USD:
        return source
    text, meshes = "", list[Path]()
    if not asset:
        text, meshes = with_mesh_paths(robot.urdf, robot.urdf_path)
    content = _digest([source, *meshes]) if asset or meshes else robot.sha256
    folder = _cache() / f"{robot.name}-{content[:16]}"
    if not (folder / MARK).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "usd"
            if text:
                source = Path(scratch) / source.name
                source.write_text(text, encoding="utf-8")
            _convert(source, made)
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    return folder / (folder / MARK).read_text()


def refuse_remote(path: str, what: str) -> None:
    """Raise RobotError for an asset that would be fetched: without a network that hangs."""
    if path.startswith(REMOTE):
        raise RobotError(
            f"{what} is fetched from '{path}'",
            expected="a local file: nothing is fetched at run time",
            remedy="download it once and name the local path",
        )


def _convert(source: Path, folder: Path) -> None:
    if not has_module("isaacsim.asset"):
        raise MissingExtraError(
            f"converting {source.name} to USD needs Isaac Sim's importer",
            remedy="run `make isaaclab` (or make setup EXTRAS=isaaclab)",
        )
    command = [sys.executable, "-m", convert.__name__, str(source.resolve()), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S)
        problem = "" if done.returncode == 0 else (done.stderr.strip() or "no reason given")
    except subprocess.TimeoutExpired:
        problem = f"not done after {CONVERT_TIMEOUT_S:g} s"
    if problem:
        raise RobotError(
            f"{source}: Isaac Sim's importer failed: {problem.splitlines()[-1]}",
            remedy="check a URDF with `check_urdf`, an MJCF with `python -m mujoco.viewer`",
        )


def _digest(files: list[Path]) -> str:
    """Return the hash of the files' content."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "grpo_ros" / "usd"
