"""Manifest: what a folder of demonstrations says of itself, and the hashes of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from grpo_ros import typed
from grpo_ros.contract import Contract
from grpo_ros.errors import DemonstrationError

SCHEMA = 1
RECORD_AGAIN = "record them again: grpo-ros demonstrate"
BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class FileRecord:
    """Length and SHA-256 of a file."""

    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Origin:
    """How demonstrations were recorded."""

    simulator: str
    seed: int
    action_noise: float
    versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Attributes:
        contract_sha256: of the contract, so that a change of it is found.
        episodes: successful ones.
        num_steps: control steps of all episodes together.
        attempts: how many episodes were tried.
        files: path below the folder -> what it has to be.
    """

    contract: Contract
    contract_sha256: str
    episodes: int
    num_steps: int
    attempts: int
    origin: Origin
    files: Mapping[str, FileRecord]
    schema: int = SCHEMA

    def to_json(self) -> bytes:
        """Return the text of the manifest's file."""
        return (json.dumps(typed.encode(self), indent=1) + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        DemonstrationError: it is absent, no JSON, of another schema, or incomplete.
    """
    try:
        data = json.loads(path.read_text())
    except OSError as problem:
        raise DemonstrationError(
            f"{path}: {problem.strerror}",
            expected="the manifest of demonstrations",
            remedy=RECORD_AGAIN,
        ) from None
    except (ValueError, RecursionError) as problem:
        raise DemonstrationError(f"{path} is not JSON: {problem}", remedy=RECORD_AGAIN) from None
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise DemonstrationError(
            f"{path} has schema {schema!r}", expected=f"schema {SCHEMA}", remedy=RECORD_AGAIN
        )
    try:
        manifest = typed.decode(Manifest, data, "", DemonstrationError)
    except DemonstrationError as problem:
        raise DemonstrationError(
            f"{path}: {problem.what}",
            expected=problem.expected,
            remedy=problem.remedy or RECORD_AGAIN,
        ) from None
    if manifest.contract.sha256 != manifest.contract_sha256:
        raise DemonstrationError(
            f"{path}: the contract is not the one that was recorded for",
            expected=f"SHA-256 {manifest.contract_sha256}",
            remedy=RECORD_AGAIN,
        )
    return manifest


def file_record(path: Path) -> FileRecord:
    """Return length and hash of a file, read in blocks."""
    digest, num_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            num_bytes += len(block)
    return FileRecord(num_bytes, digest.hexdigest())


def check_files(folder: Path, files: Mapping[str, FileRecord], remedy: str = RECORD_AGAIN) -> None:
    """Check that a folder's files are what its manifest says.

    Raises:
        DemonstrationError: a file is absent, cut short or changed; names it.
    """
    for name, wanted in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DemonstrationError(f"{folder}: its manifest names '{name}', outside of it")
        try:
            num_bytes = path.stat().st_size
            if num_bytes != wanted.num_bytes:
                raise DemonstrationError(
                    f"{path} has {num_bytes} bytes",
                    expected=f"{wanted.num_bytes}, as its manifest says",
                    remedy=f"copy the folder again, or {remedy}",
                )
            found = file_record(path)
        except OSError as problem:
            raise DemonstrationError(
                f"{path}: {problem.strerror}", expected="a file of demonstrations", remedy=remedy
            ) from None
        if found != wanted:
            raise DemonstrationError(
                f"{path} is damaged: its SHA-256 is {found.sha256[:12]}...",
                expected=f"{wanted.sha256[:12]}..., as its manifest says",
                remedy=f"copy the folder again, or {remedy}",
            )


def content_sha256(folder: Path, files: Sequence[Path]) -> str:
    """Return a hash of files' names below a folder and of their bytes."""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder)} {file_record(path).sha256}\n".encode())
    return digest.hexdigest()
