"""Companions: the files that belong to a policy too large for one, and that its file vouches for.

A policy whose weights are too many for one file (`onnx_export`) is written as

policy.onnx: the head's graph, the contract, and the list of the others, all under one hash.
policy_backbone-HASH.onnx: the graph from images to features.
policy-HASH.data, policy_backbone-HASH.data: the weights of each, float32, little-endian.

HASH is the beginning of a file's SHA-256, so a new policy never takes the names of an older one:
the old one stays whole until policy.onnx is replaced, which is one rename.

The list names each file with its size and SHA-256. A file is opened by its plain name in the
folder of the policy, without following links, and hashed as it is read, by blocks, into memory of
the size that the list gives: what was hashed is what runs, whatever happens to the file later.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from grpo_ros.errors import PolicyFileError

GRAPH_SUFFIX, DATA_SUFFIX = ".onnx", ".data"
MAX_COMPANIONS = 8
MAX_NAME = 200
BLOCK = 8 * 2**20
"""Bytes that are read and hashed at a time."""
HASH_LENGTH = 64
COPY_AGAIN = "copy the policy with all its files once more, or export it again"


@dataclasses.dataclass(frozen=True)
class Companion:
    """A file beside a policy file: its plain name, bytes, and SHA-256 in hexadecimal digits."""

    name: str
    num_bytes: int
    sha256: str

    @property
    def is_graph(self) -> bool:
        """Whether it is a graph, and not weights."""
        return self.name.endswith(GRAPH_SUFFIX)


def to_json(companions: Iterable[Companion]) -> str:
    """Return the list as `from_json` takes it."""
    return json.dumps(
        [{"name": c.name, "bytes": c.num_bytes, "sha256": c.sha256} for c in companions]
    )


def from_json(path: Path, text: str) -> tuple[Companion, ...]:
    """Return the companions that a policy file lists: one graph, and files of weights.

    Raises:
        PolicyFileError: it is no such list, or a name is not a plain one.
    """
    try:
        if len(text) > MAX_COMPANIONS * 2 * MAX_NAME:
            raise ValueError(f"{len(text)} characters")
        found = tuple(_companion(entry) for entry in json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise PolicyFileError(
            f"{path}: list of companions: {problem}",
            expected=f"up to {MAX_COMPANIONS} of name, bytes and sha256, each a plain file name",
            remedy=COPY_AGAIN,
        ) from problem
    names = {companion.name for companion in found}
    num_graphs = sum(companion.is_graph for companion in found)
    if len(names) != len(found) or len(found) > MAX_COMPANIONS or num_graphs != 1:
        raise PolicyFileError(
            f"{path}: companions {[companion.name for companion in found]}",
            expected=f"one {GRAPH_SUFFIX} and files {DATA_SUFFIX}, each once",
            remedy=COPY_AGAIN,
        )
    return found


def check_present(folder: Path, companions: Sequence[Companion]) -> None:
    """Raise PolicyFileError unless every companion is there as a file of its size; reads none."""
    for companion in companions:
        os.close(_opened(folder, companion))


def read_companion(folder: Path, companion: Companion) -> npt.NDArray[np.uint8]:
    """Return the bytes of a companion, each read once and hashed as it was read.

    Raises:
        PolicyFileError: absent, a link, no file, or not of the size or hash that the list gives.
    """
    path = folder / companion.name
    data = np.empty(companion.num_bytes, np.uint8)
    digest = hashlib.sha256()
    at = 0
    with os.fdopen(_opened(folder, companion), "rb", buffering=0) as file:
        while at < len(data):
            count = file.readinto(data[at : at + BLOCK].data)
            if not count:
                break
            digest.update(data[at : at + count].data)
            at += count
        is_longer = bool(file.read(1))
    if at < len(data) or is_longer:
        raise _wrong_size(path, companion, at)
    if digest.hexdigest() != companion.sha256:
        raise PolicyFileError(
            f"{path}: bytes do not match the policy's list",
            expected=f"sha256 {companion.sha256}",
            remedy=COPY_AGAIN,
        )
    return data


def _companion(entry: Any) -> Companion:
    """Return an entry of the list; raise ValueError for what is not one."""
    if not isinstance(entry, dict) or entry.keys() != {"name", "bytes", "sha256"}:
        raise ValueError(f"{str(entry)[:MAX_NAME]} is no entry")
    name, num_bytes, sha256 = entry["name"], entry["bytes"], entry["sha256"]
    if not isinstance(name, str) or not is_plain(name):
        raise ValueError(f"{str(name)[:MAX_NAME]!r} is not the plain name of a graph or weights")
    if type(num_bytes) is not int or not 0 < num_bytes < 2**50:
        raise ValueError(f"{name} of {str(num_bytes)[:MAX_NAME]} bytes")
    is_digest = isinstance(sha256, str) and len(sha256) == HASH_LENGTH
    if not is_digest or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"{name} with sha256 {str(sha256)[:MAX_NAME]!r}")
    return Companion(name, num_bytes, sha256)


def is_plain(name: str) -> bool:
    """Return whether a name can only mean a file in the folder itself, which is not hidden."""
    is_known = name.endswith((GRAPH_SUFFIX, DATA_SUFFIX))
    is_odd = name.startswith(".") or any(c in "/\\:" or not c.isprintable() for c in name)
    return is_known and not is_odd and len(name) <= MAX_NAME


def _opened(folder: Path, companion: Companion) -> int:
    """Return a descriptor of the file, whose kind and size are those of the list."""
    path = folder / companion.name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as problem:
        is_link = path.is_symlink()
        reason = "a symbolic link" if is_link else getattr(problem, "strerror", "") or problem
        raise PolicyFileError(
            f"{path}: {reason}", expected="a file that the policy lists", remedy=COPY_AGAIN
        ) from problem
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size == companion.num_bytes:
        return descriptor
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise PolicyFileError(
            f"{path}: not a file", expected="a file that the policy lists", remedy=COPY_AGAIN
        )
    raise _wrong_size(path, companion, status.st_size)


def _wrong_size(path: Path, companion: Companion, found: int) -> PolicyFileError:
    return PolicyFileError(
        f"{path}: {found} bytes, or changing while it is read",
        expected=f"{companion.num_bytes} bytes by the policy's list",
        remedy=COPY_AGAIN,
    )
