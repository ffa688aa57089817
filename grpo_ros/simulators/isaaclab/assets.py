"""Robots for Isaac Lab: a URDF converted to USD once, or a USD of the user's own."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from grpo_ros.errors import MissingExtraError, RobotError
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.isaaclab import convert
from grpo_ros.simulators.isaaclab.convert import MARK

CONVERT_TIMEOUT_S = 180.0
REMOTE = ("omniverse://", "http://", "https://", "s3://", "omni:")


def robot_usd(robot: Robot) -> Path:
    """Return the USD of a robot's URDF, converted at first use and kept in the user's cache.

    Raises:
        MissingExtraError: Isaac Sim's importer is not installed.
        RobotError: the importer could not convert the URDF.
    """
    folder = _cache() / f"{robot.name}-{robot.sha256[:16]}"
    if (folder / MARK).is_file():
        return folder / (folder / MARK).read_text()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "usd"
        _convert(robot, made)
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


def _convert(robot: Robot, folder: Path) -> None:
    if importlib.util.find_spec("isaacsim.asset") is None:
        raise MissingExtraError(
            f"converting {robot.urdf_path.name} to USD needs Isaac Sim's importer",
            remedy="run `make isaaclab` (or make setup EXTRAS=isaaclab)",
        )
    command = [sys.executable, "-m", convert.__name__, str(robot.urdf_path), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_TIMEOUT_S)
        problem = "" if done.returncode == 0 else (done.stderr.strip() or "no reason given")
    except subprocess.TimeoutExpired:
        problem = f"not done after {CONVERT_TIMEOUT_S:g} s"
    if problem:
        raise RobotError(
            f"{robot.urdf_path}: Isaac Sim's importer failed: {problem.splitlines()[-1]}",
            remedy="check the URDF with `check_urdf`",
        )


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "grpo_ros" / "usd"
