"""Where a user's own tasks are."""

from __future__ import annotations

import os
from pathlib import Path

FOLDERS_VARIABLE = "GRPO_ROS_TASKS"


def task_folders() -> list[Path]:
    """Return the folders that the environment names, in its order."""
    return [Path(text) for text in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if text]
