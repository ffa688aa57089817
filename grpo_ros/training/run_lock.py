"""Locks on run folders: one process trains in a folder at a time.

The operating system's own advisory locks (flock): they end with the process, however it ends, and
two processes that start at once cannot both get one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

NAME = "lock"
_held: dict[Path, int] = {}
"""Folder -> file descriptor of the lock that this process has on it."""


def take(folder: Path) -> bool:
    """Lock a folder for this process; return whether it is locked now, also if it was before."""
    folder = folder.resolve()
    if folder in _held:
        return True
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _held[folder] = descriptor
    return True


def give_up(folder: Path) -> None:
    """Unlock a folder; idempotent."""
    descriptor = _held.pop(folder.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)


def is_taken_elsewhere(folder: Path) -> bool:
    """Return whether another process has a folder locked."""
    folder = folder.resolve()
    if folder in _held or not (folder / NAME).exists():
        return False
    if take(folder):
        give_up(folder)
        return False
    return True
