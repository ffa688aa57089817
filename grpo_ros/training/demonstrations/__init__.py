"""Demonstrations: recorded by a task's script, kept in folders, read again."""

from grpo_ros.training.demonstrations.folder import (
    Format,
    Stored,
    check_can_write,
    default_format,
    folder_sha256,
    read_demonstrations,
    write_demonstrations,
)
from grpo_ros.training.demonstrations.manifest import Origin
from grpo_ros.training.demonstrations.recording import (
    DEMONSTRATION,
    Demonstrations,
    Episode,
    Recording,
    fit_statistics,
    record,
    record_episodes,
    to_samples,
)

__all__ = [
    "DEMONSTRATION",
    "Demonstrations",
    "Episode",
    "Format",
    "Origin",
    "Recording",
    "Stored",
    "check_can_write",
    "default_format",
    "fit_statistics",
    "folder_sha256",
    "read_demonstrations",
    "record",
    "record_episodes",
    "to_samples",
    "write_demonstrations",
]
