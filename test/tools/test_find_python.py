"""tools/find_python.sh picks an interpreter that fits, or names the remedy in one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "find_python.sh"


SYSTEM_PLACES = (
    ("/usr/local/bin", "python3.12"),
    ("/usr/bin", "python3.12"),
    ("/opt", "*/bin/python3.12"),
)
TOOLS = ("mktemp", "tail", "rm", "grep", "sort", "head", "paste", "sed", "sh")


def find(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script where `folder` holds the only interpreters of the PATH."""
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or tool)
    env = {"PATH": str(folder), "HOME": str(folder), **variables}
    return subprocess.run(
        ["/bin/sh", SCRIPT], env=env, capture_output=True, text=True, check=False
    )


def fake(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def real(path: Path) -> Path:
    """Make an interpreter that is this one."""
    library_path = os.environ.get("LD_LIBRARY_PATH", "")
    return fake(path, f'LD_LIBRARY_PATH="{library_path}" exec "{sys.executable}" "$@"')


def test_a_shim_that_refuses_to_run_is_passed_over(tmp_path: Path) -> None:
    fake(tmp_path / "python3.12", "echo 'python3.12: command not found' >&2; exit 127")
    real(tmp_path / "python3")
    found = find(tmp_path)
    assert found.returncode == 0, found.stderr
    version = subprocess.check_output([found.stdout.strip(), "--version"], text=True)
    assert version.startswith("Python 3.12")


def test_the_interpreter_beneath_a_virtual_environment_is_found(tmp_path: Path) -> None:
    found = find(tmp_path, PYTHON=str(real(tmp_path / "mine")))
    assert found.returncode == 0, found.stderr
    assert not (Path(found.stdout.strip()).parents[1] / "pyvenv.cfg").exists()


def test_the_named_interpreter_goes_before_the_path(tmp_path: Path) -> None:
    fake(tmp_path / "python3.12", "echo /the/one/on/the/path")
    named = fake(tmp_path / "named", "echo /the/named/one")
    assert find(tmp_path, PYTHON=str(named)).stdout == "/the/named/one\n"


def test_without_a_fitting_interpreter_one_line_names_what_was_seen_and_the_remedy(
    tmp_path: Path,
) -> None:
    if any(any(Path(folder).glob(name)) for folder, name in SYSTEM_PLACES):
        pytest.skip("this machine has a CPython 3.12 in a place that is always searched")
    old = fake(tmp_path / "python3", "echo 'is CPython 3.9' >&2; exit 1")
    missing = find(tmp_path)
    assert missing.returncode == 1
    assert missing.stdout == ""
    assert missing.stderr.count("\n") == 1
    assert f"{old} is CPython 3.9" in missing.stderr
    assert "apt-get install" in missing.stderr
    assert "PYTHON=/path/to" in missing.stderr
