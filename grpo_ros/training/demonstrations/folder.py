"""Folders of demonstrations: written atomically in either format, told apart, hashed and read."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Literal

from grpo_ros.contract import Contract
from grpo_ros.errors import DemonstrationError
from grpo_ros.training.demonstrations import (
    episodes_format,
    lerobot_format,
    lerobot_reading,
)
from grpo_ros.training.demonstrations.manifest import RECORD_AGAIN, Origin, content_sha256
from grpo_ros.training.demonstrations.recording import Recording

Format = Literal["episodes", "lerobot"]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A folder of demonstrations that was read.

    Attributes:
        path: the folder.
        format: episodes | lerobot.
        sha256: of its data, as `folder_sha256` gives it.
        recording: what was read.
    """

    path: Path
    format: Format
    sha256: str
    recording: Recording

    def __str__(self) -> str:
        return (
            f"{len(self.recording.episodes)} demonstrations of {self.recording.num_steps} control "
            f"steps from {self.path} ({self.format})"
        )

    def to_json(self) -> dict[str, object]:
        """Return what a run keeps of it."""
        return {
            "path": str(self.path),
            "format": self.format,
            "sha256": self.sha256,
            "episodes": len(self.recording.episodes),
            "num_steps": self.recording.num_steps,
        }


def default_format() -> Format:
    """Return lerobot where LeRobot is installed, else episodes."""
    return "lerobot" if lerobot_format.is_installed() else "episodes"


def check_is_free(folder: Path) -> None:
    """Check that demonstrations may be written to a folder: it is absent or empty.

    Raises:
        DemonstrationError: something is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemonstrationError(
            f"{folder} is there already", expected="a new or empty folder", remedy="name another"
        )


def check_can_write(folder: Path, contract: Contract, kind: Format, video: bool = False) -> None:
    """Check before anything is recorded that `write_demonstrations` will be able to keep it.

    Raises:
        DemonstrationError: the folder is not free, or the format cannot hold it.
        MissingExtraError: LeRobot is wanted and not installed.
    """
    check_is_free(folder)
    if kind == "lerobot":
        lerobot_format.check_can_write(contract, video)
    elif video:
        raise DemonstrationError("videos in the format episodes", remedy="--format lerobot")


def write_demonstrations(
    folder: Path,
    recording: Recording,
    contract: Contract,
    origin: Origin,
    kind: Format,
    video: bool = False,
) -> None:
    """Write a recording, so that the folder is there whole or not at all.

    Args:
        folder: absent or empty.
        recording: what to keep.
        contract: what it was recorded for.
        origin: how.
        kind: episodes | lerobot.
        video: store images as lossy videos; LeRobot's format only.

    Raises:
        DemonstrationError: the folder is not free, the disk refuses, or the format cannot hold it.
        MissingExtraError: LeRobot is wanted and not installed.
    """
    check_can_write(folder, contract, kind, video)
    if not recording.episodes:
        raise DemonstrationError(f"no episodes to write to {folder}", expected="at least one")
    folder = folder.resolve()  # `.` has no name, and a link is not replaced
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        if kind == "lerobot":
            lerobot_format.write(temporary, recording, contract, origin, video)
        else:
            temporary.mkdir()
            episodes_format.write(temporary, recording, contract, origin)
        temporary.rename(folder)
    except OSError as problem:
        raise DemonstrationError(
            f"{folder} not written: {problem.strerror or problem}", remedy="free some space"
        ) from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def format_of(folder: Path) -> Format:
    """Return which format a folder has.

    Raises:
        DemonstrationError: neither; says what is missing.
    """
    if (folder / episodes_format.MANIFEST).is_file():
        return "episodes"
    if (folder / lerobot_format.INFO).is_file():
        return "lerobot"
    what = "is no folder" if not folder.is_dir() else "holds no demonstrations"
    raise DemonstrationError(
        f"demonstrations.path = '{folder}' {what}",
        expected=f"{episodes_format.MANIFEST}, or {lerobot_format.INFO} of a LeRobotDataset",
        remedy=RECORD_AGAIN,
    )


def folder_sha256(folder: Path) -> str:
    """Return a hash of a folder's data: where it lies and what it is called have no part in it.

    Raises:
        DemonstrationError: there are no demonstrations, or they cannot be read.
    """
    try:
        if format_of(folder) == "episodes":
            return content_sha256(folder, [folder / episodes_format.DATA])
        return content_sha256(folder, lerobot_format.data_files(folder))
    except OSError as problem:
        raise DemonstrationError(
            f"{problem.filename or folder}: {problem.strerror}", remedy=RECORD_AGAIN
        ) from None


def read_demonstrations(folder: Path, contract: Contract) -> Stored:
    """Return the demonstrations in a folder of either format.

    Raises:
        DemonstrationError: they are damaged, or do not fit the contract.
        MissingExtraError: a LeRobotDataset, and LeRobot is not installed.
    """
    kind = format_of(folder)
    sha256 = folder_sha256(folder)
    read = lerobot_reading.read if kind == "lerobot" else episodes_format.read
    return Stored(folder, kind, sha256, read(folder, contract))
