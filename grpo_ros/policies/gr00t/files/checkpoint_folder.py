"""CheckpointFolder: a folder from anybody, of which only plain files inside it are read."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from grpo_ros.errors import CheckpointError, MissingExtraError
from grpo_ros.policies.gr00t.files.json_value import AGAIN, JsonValue, parse_json

MAX_JSON_BYTES = 32 * 2**20
MAX_SHARDS = 1024
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COPY_WHOLE = "copy the files themselves there (cp -rL)"

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor -> its shape."""


class CheckpointFolder:
    """Files of one folder: regular, inside it, and no larger than they may be.

    Attributes:
        path: absolute, without links.
    """

    def __init__(self, path: Path | str, what: str) -> None:
        """Take the path of a folder.

        Args:
            path: of the folder.
            what: it is, for messages: "checkpoint" or "tokenizer".

        Raises:
            CheckpointError: there is no such folder, or it is a name on a hub.
        """
        given = Path(path)
        if HUB_ID.fullmatch(str(path)) and not given.exists():
            raise CheckpointError(
                f"{what} '{path}' is no folder here, maybe a name on a hub",
                expected="the path of a folder",
                remedy=f"nothing is downloaded: `hf download {path} --local-dir FOLDER`, then "
                "give the folder's path",
            )
        try:
            self.path = given.resolve(strict=True)
            is_folder = self.path.is_dir()
        except (OSError, RuntimeError, ValueError) as problem:
            raise CheckpointError(
                f"{what} '{path}' cannot be read: {problem}", expected="a folder"
            ) from problem
        if not is_folder:
            raise CheckpointError(f"{what} '{path}' is a file", expected="a folder")

    def has(self, name: str) -> bool:
        """Return whether there is something of that name."""
        return (self.path / name).exists()

    def file(self, name: str) -> Path:
        """Return the path of a file.

        Raises:
            CheckpointError: it is missing, no regular file, or not in this folder.
        """
        path = self.path / name
        try:
            resolved = path.resolve(strict=True)
            mode = resolved.stat().st_mode
        except (OSError, RuntimeError, ValueError) as problem:
            raise CheckpointError(
                f"{self.path} has no readable '{name}'", expected="that file", remedy=AGAIN
            ) from problem
        if not resolved.is_relative_to(self.path):
            raise CheckpointError(
                f"'{name}' of {self.path} leads to {resolved}",
                expected="files inside the folder",
                remedy=COPY_WHOLE,
            )
        if not stat.S_ISREG(mode):
            raise CheckpointError(f"{path} is not a regular file", expected="a file", remedy=AGAIN)
        return resolved

    def json(self, name: str) -> JsonValue:
        """Return the JSON object in a file.

        Raises:
            CheckpointError: the file is missing, too large, or holds no JSON object.
        """
        path = self.file(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_JSON_BYTES + 1)
        except OSError as problem:
            raise CheckpointError(f"{path} cannot be read: {problem.strerror}") from problem
        if len(data) > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} is larger than {MAX_JSON_BYTES} bytes",
                expected="a JSON file of a checkpoint",
                remedy=AGAIN,
            )
        value = parse_json(data, str(path))
        value.mapping()
        return value

    def shards(self) -> dict[str, tuple[str, ...]]:
        """Return file name -> names of the tensors that the index says are in it.

        Without an index the one file is `model.safetensors`, whose tensors are not listed.

        Raises:
            CheckpointError: there is neither, or the index is wrong.
        """
        if not self.has(INDEX):
            if not self.has(SINGLE):
                raise CheckpointError(
                    f"{self.path} has no weights",
                    expected=f"{INDEX} and its shards, or {SINGLE}",
                    remedy=AGAIN,
                )
            return {SINGLE: ()}
        weight_map = self.json(INDEX)["weight_map"]
        shards: dict[str, list[str]] = {}
        for tensor in weight_map.mapping():
            name = weight_map[tensor].text()
            if "/" in name or "\\" in name or not name.endswith(".safetensors"):
                raise weight_map[tensor].refuse("the name of a .safetensors file in the folder")
            shards.setdefault(name, []).append(tensor)
        if not 1 <= len(shards) <= MAX_SHARDS:
            raise CheckpointError(
                f"{weight_map.where} names {len(shards)} files", expected=f"1 to {MAX_SHARDS}"
            )
        return {name: tuple(tensors) for name, tensors in shards.items()}

    def shapes(self) -> Shapes:
        """Return the shape of every tensor, after checking all shards against the index.

        Headers alone are read.

        Raises:
            CheckpointError: a shard is missing, damaged or truncated, or does not hold what the
                index says.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for name, expected in self.shards().items():
            found = read_shapes(self.file(name))
            differing = set(found) ^ set(expected) if expected else set()
            if differing or set(found) & set(shapes):
                example = sorted(differing or set(found) & set(shapes))[0]
                raise CheckpointError(
                    f"{self.path / name} and {INDEX} do not agree about '{example}'",
                    expected="each tensor in the one shard that the index names",
                    remedy=AGAIN,
                )
            shapes.update(found)
        return shapes


def read_shapes(path: Path) -> Shapes:
    """Return the shapes of the tensors of a safetensors file; reads its header alone.

    Raises:
        CheckpointError: the file is truncated, damaged, or no safetensors.
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as problem:
        raise MissingExtraError(
            f"safetensors cannot be imported ({problem})", remedy="`make setup`"
        ) from problem
    try:
        with safe_open(path, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise CheckpointError(
            f"{path} is no whole safetensors file: {problem}", remedy=AGAIN
        ) from problem
