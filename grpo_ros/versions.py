"""The versions that results depend on."""

from __future__ import annotations

import contextlib
import platform

from grpo_ros import __version__


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    from importlib import metadata

    found = {"python": platform.python_version(), "grpo_ros": __version__}
    for package in ("torch", "numpy", "mujoco", "onnxruntime-gpu"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    for package in ("isaaclab", "newton", "mujoco-warp", "warp-lang"):  # of the extra isaaclab
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
