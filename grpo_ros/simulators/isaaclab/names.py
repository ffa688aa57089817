"""Names of assets in Isaac Lab's scene, apart by kind: a body may be called as it likes."""

from __future__ import annotations

ROBOT, LIGHT = "robot", "light"


def body_asset(name: str) -> str:
    """Return the asset of a task's body."""
    return f"body_{name}"


def camera_asset(name: str) -> str:
    """Return the asset of a task's camera."""
    return f"camera_{name}"
