"""One checkout's environment: its paths, its log, and which set-up steps are done there."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

NEEDED_GB = 8  # what the packages take on disk, with the room that unpacking wants

DISK_FULL = re.compile(
    r"No space left on device|Errno 28\b|os error 28\b|Disk quota exceeded", re.I
)
NO_NETWORK = re.compile(
    r"Failed to establish a new connection|NewConnectionError|Connection refused"
    r"|Network is unreachable|Temporary failure in name resolution|Name or service not known"
    r"|dns error|error sending request|Could not connect|Failed to fetch|ConnectTimeout"
    r"|Read timed out|ProxyError|tunnel",
    re.I,
)


class SetUpError(Exception):
    """What went wrong and the remedy, in one line."""


class DiskFullError(SetUpError):
    """The disk is full: another way of installing would not help."""


def failure(what: str, output: str, folder: Path) -> SetUpError:
    """Return the error that names what `output` shows to have gone wrong, and its remedy."""
    places = (folder, Path(tempfile.gettempdir()))
    is_full = any(shutil.disk_usage(place).free < 2**24 for place in places if place.is_dir())
    if is_full or DISK_FULL.search(output):
        return DiskFullError(
            f"{what}: the disk is full. Remedy: free {NEEDED_GB} GB where {folder}, "
            f"{places[1]} and ~/.cache lie, then run make again"
        )
    if NO_NETWORK.search(output):
        return SetUpError(
            f"{what}: the package index cannot be reached. Remedy: check the network and "
            "HTTPS_PROXY, or name a mirror in PIP_INDEX_URL, then run make again"
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [
        line for line in lines if re.search(r"error|no solution|not load|cannot", line, re.I)
    ]
    return SetUpError(f"{what} failed: {(errors or lines or ['it printed nothing'])[-1][:300]}")


class Workspace:
    """The paths of one checkout, its log, and the keys of the steps already done there."""

    def __init__(self, root: Path) -> None:
        """Take the checkout at `root`; nothing is written yet."""
        self.root = root
        self.venv = root / ".venv"
        self.python = self.venv / "bin" / "python"
        self.log = self.venv / "setup.log"
        self._ros_prefix = self.venv / "ros_prefix"  # activate.sh reads it
        self._state = self.venv / "set_up.json"

    @property
    def ros(self) -> Path | None:
        """The prefix of the ROS 2 installation that .venv was made for; None is the wheel's."""
        try:
            return Path(self._ros_prefix.read_text().strip())
        except FileNotFoundError:
            return None

    @ros.setter
    def ros(self, prefix: Path | None) -> None:
        if prefix is None:
            self._ros_prefix.unlink(missing_ok=True)
        else:
            self._ros_prefix.write_text(f"{prefix}\n")

    def requirements(self, name: str) -> Path:
        """Return the path of one set of requirements, or raise naming the sets there are."""
        path = self.root / "tools" / "requirements" / f"{name}.txt"
        if not path.is_file():
            known = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt")))
            raise SetUpError(f"no requirements are called {name!r}. Remedy: choose from {known}")
        return path

    def keys(self) -> dict[str, str]:
        """Return the keys of the finished steps, by step."""
        try:
            return {
                str(step): str(key) for step, key in json.loads(self._state.read_text()).items()
            }
        except (OSError, ValueError, AttributeError):
            return {}

    def record(self, step: str, key: str) -> None:
        """Note that a step is finished under this key."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps({**self.keys(), step: key}, indent=1))
        fresh.replace(self._state)

    def step(self, name: str, key: str, work: Callable[[], None]) -> bool:
        """Do `work` unless it was done under this key; return whether it was done now."""
        if self.keys().get(name) == key:
            return False
        work()
        self.record(name, key)
        return True

    def empty(self) -> None:
        """Remove what is in .venv; the folder itself stays, for it may be a mount point."""
        self.venv.mkdir(exist_ok=True)
        for entry in self.venv.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def run(
        self, what: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> str:
        """Return the output of `command`, run at the root; raise SetUpError if it fails."""
        words = [str(word) for word in command]
        with self.log.open("a+b") as log:
            log.write(f"$ {' '.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            done = subprocess.run(
                words,
                cwd=self.root,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
            log.seek(start, os.SEEK_SET)
            output = log.read().decode(errors="replace")
        if done.returncode != 0:
            raise failure(what, output, self.venv)
        return output
