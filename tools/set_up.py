"""Bring the checkout's own environment (.venv, build/, install/) up to date.

Run by `make setup` under the interpreter that tools/find_python.sh chose. Standard library only:
nothing is installed yet. Every step carries a key, a hash of what it depends on, and is skipped
while .venv/set_up.json holds that key, so a second call takes a fraction of a second.
"""

import ctypes
import ctypes.util
import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from workspace import NEEDED_GB, DiskFullError, SetUpError, Workspace, failure

ROS_VARIABLES = (
    "AMENT_PREFIX_PATH",
    "COLCON_PREFIX_PATH",
    "CMAKE_PREFIX_PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "ROS_DISTRO",
)


def say(line: str) -> None:
    """Print one line of progress."""
    print(f"set-up: {line}", flush=True)


def digest(parts: Iterable[str | bytes]) -> str:
    """Return a hash of the parts and of where each ends."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def sourced_ros(env: Mapping[str, str]) -> Path | None:
    """Return the ROS 2 Jazzy sourced in `env`; one out of a wheel has no setup.bash."""
    if env.get("ROS_DISTRO") != "jazzy":
        return None
    for prefix in map(Path, filter(None, env.get("AMENT_PREFIX_PATH", "").split(":"))):
        if (prefix / "setup.bash").is_file() and (prefix / "share" / "rclpy").is_dir():
            return prefix
    return None


def without_ros(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` less what a sourced ROS put there: it must not leak into installs."""
    return {key: value for key, value in env.items() if key not in ROS_VARIABLES}


def activated(*command: str | Path) -> list[str | Path]:
    """Return `command`, to be run in the environment that activate.sh makes."""
    return ["bash", "-c", '. ./activate.sh && exec "$@"', "activated", *command]


# The environment and the ROS in it.


def make_environment(workspace: Workspace, ros: Path | None) -> None:
    """Make .venv anew, for the sourced ROS if that works under our numpy."""
    if ros is None:
        make_venv(workspace, None)
        return
    try:
        make_venv(workspace, ros)
        numpy = re.findall(r"^numpy[^#\s]*", workspace.requirements("runtime").read_text(), re.M)
        install(workspace, "installing numpy", numpy)
        probe(workspace)
    except DiskFullError:
        raise
    except SetUpError as error:
        say(f"the ROS 2 sourced from {ros} is set aside: {error}")
        make_venv(workspace, None)
        workspace.record("ros set aside", str(ros))


def make_venv(workspace: Workspace, ros: Path | None) -> None:
    """Make .venv anew; for a sourced ROS it sees the system's Python packages."""
    workspace.empty()
    remove_build(workspace)
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"creating .venv with CPython {version}" + (f" for the ROS 2 in {ros}" if ros else ""))
    options = ["--system-site-packages"] if ros else []
    env = without_ros(os.environ)
    workspace.run("creating .venv", [sys.executable, "-m", "venv", *options, workspace.venv], env)
    (workspace.venv / "COLCON_IGNORE").touch()
    workspace.ros = ros


def install_ros_wheel(workspace: Workspace) -> None:
    """Install the ROS libraries of the wheel, and check that they load."""
    say("no usable ROS 2 Jazzy is sourced: installing the one in NVIDIA's Isaac Sim wheel")
    try:
        ctypes.CDLL("libpython3.12.so.1.0")
    except OSError:
        raise SetUpError(
            "the ROS 2 of the wheel needs libpython3.12.so. Remedy: apt-get install "
            "libpython3.12, or make setup PYTHON=/path/to/a/shared/python3.12"
        ) from None
    install(
        workspace, "installing ROS 2", ["--no-deps", "-r", workspace.requirements("ros_wheel")]
    )
    probe(workspace)


def probe(workspace: Workspace) -> None:
    """Raise unless every ROS message that the package uses works under the numpy in .venv."""
    output = workspace.run("loading the ROS 2 messages", activated("python", "tools/probe_ros.py"))
    for line in output.splitlines():
        if line.startswith("optional:"):
            say(line)


def install_ros_shim(workspace: Workspace) -> None:
    """Install `ros2` and its verb `launch` where ROS itself brings no `ros2`."""
    if workspace.ros and (workspace.ros / "bin" / "ros2").exists():
        return
    source = workspace.root / "tools" / "ros2_shim"
    with tempfile.TemporaryDirectory() as folder:  # pip builds in the source's folder
        copy = shutil.copytree(source, Path(folder) / source.name)
        options = ["--no-deps", "--no-build-isolation", "--force-reinstall"]
        command = activated("python", "-m", "pip", "install", *options, copy)
        workspace.run("installing the ros2 command", command)


# The packages.


def install_packages(workspace: Workspace, base: Sequence[str], extras: Sequence[str]) -> bool:
    """Install these sets of requirements in one resolver call; return whether one was stale."""
    names = [*base, *extras]
    common = [workspace.requirements(name).read_bytes() for name in base]
    keys = {
        f"packages of {name}": digest([*common, workspace.requirements(name).read_bytes()])
        for name in names
    }
    if keys.items() <= workspace.keys().items():
        return False
    has_torch = any(workspace.venv.glob("lib/python3.12/site-packages/torch"))
    free_gb = shutil.disk_usage(workspace.venv).free / 1e9
    if not has_torch and free_gb < NEEDED_GB:
        raise DiskFullError(
            f"{workspace.venv} has {free_gb:.1f} GB left of the {NEEDED_GB} GB needed. Remedy: "
            "free some, or make .venv a link to a folder on a larger disk, then run make again"
        )
    size = "" if has_torch else ": 6 GB, a minute or more"
    say(f"installing the packages of {', '.join(names)}{size}")
    files = [option for name in names for option in ("-r", workspace.requirements(name))]
    install(workspace, "installing packages", files)
    for step, key in keys.items():
        workspace.record(step, key)
    return True


def install_no_deps(workspace: Workspace, extra: str) -> bool:
    """Install what an extra needs whose own requirements contradict the rest, if there is any."""
    name = f"{extra}_no_deps"
    if not (workspace.root / "tools" / "requirements" / f"{name}.txt").is_file():
        return False
    path = workspace.requirements(name)
    arguments: list[str | Path] = ["--no-deps", "-r", path]
    return workspace.step(
        f"packages of {name}",
        digest([path.read_bytes()]),
        lambda: install(workspace, f"installing the packages of {name}", arguments),
    )


def install(workspace: Workspace, what: str, arguments: Sequence[str | Path]) -> None:
    """Install with uv, some ten times faster; with pip where uv does not get through."""
    pip: list[str | Path] = [workspace.python, "-m", "pip", "--disable-pip-version-check"]
    uv = workspace.venv / "bin" / "uv"
    env = without_ros(os.environ)
    try:
        if not uv.exists():
            workspace.run("installing uv", [*pip, "install", "uv"], env)
        command: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--python",
            workspace.python,
            *arguments,
        ]
        workspace.run(what, command, {**uv_index(workspace, env), **env})
    except DiskFullError:
        raise
    except SetUpError:
        say(f"{what}: uv did not get through, trying pip, which is slower")
        workspace.run(what, [*pip, "install", *arguments], env)


def uv_index(workspace: Workspace, env: Mapping[str, str]) -> dict[str, str]:
    """Return the index that pip is configured with, under the name that uv reads."""
    if {"UV_INDEX_URL", "UV_DEFAULT_INDEX"} & env.keys():
        return {}
    command: list[str | Path] = [workspace.python, "-m", "pip", "config", "list"]
    config = workspace.run("reading pip's configuration", command, env)
    found = re.findall(r"^(?::env:|[\w-]+)\.index-url='(.+)'$", config, re.M)
    return {"UV_DEFAULT_INDEX": found[-1]} if found else {}


# The package itself.


def build(workspace: Workspace) -> None:
    """Build with colcon: links instead of copies, so that an edit needs no build."""
    say("building the package with colcon")
    options = ["--symlink-install", "--base-paths", ".", "--packages-select", "grpo_ros"]
    command = activated("python", "-m", "colcon", "--log-base", "build/log", "build", *options)
    try:
        workspace.run("colcon build", command)
    except DiskFullError:
        raise
    except SetUpError:  # over a build of another layout, as a plain `colcon build` makes it
        remove_build(workspace)
        workspace.run("colcon build", command)
    for folder in ("install", "build"):  # links to launch or config files that are gone
        for path in (workspace.root / folder).rglob("*"):
            if path.is_symlink() and not path.exists():
                path.unlink()


def remove_build(workspace: Workspace) -> None:
    """Remove what colcon built; it holds absolute paths of the checkout and of .venv."""
    for folder in ("build", "install"):
        shutil.rmtree(workspace.root / folder, ignore_errors=True)


def build_key(workspace: Workspace) -> str:
    """Return what a build depends on: its description, and the names of the files it links."""
    root = workspace.root
    described = [root / name for name in ("setup.py", "setup.cfg", "package.xml")]
    linked = [
        path
        for folder in ("launch", "config", "scripts", "resource")
        for path in (root / folder).rglob("*")
    ]
    packages = (root / "grpo_ros").rglob("__init__.py")
    names = {
        str(path.relative_to(root))
        for path in (*linked, *packages)
        if "__pycache__" not in path.parts
    }
    return digest([*(path.read_bytes() for path in described), *sorted(names)])


def missing_renderer() -> str | None:
    """Return one line on what is lost where neither a GPU nor OSMesa can render."""
    has_gpu = Path("/dev/nvidia0").exists() or Path("/dev/dri").exists()
    if has_gpu or ctypes.util.find_library("OSMesa"):
        return None
    return (
        "libosmesa6 is missing: reports get no films, cameras no images. "
        "Remedy: sudo apt-get install -y libosmesa6"
    )


def set_up(workspace: Workspace, extras: Sequence[str]) -> bool:
    """Bring everything up to date; return whether there was anything to do."""
    sourced = sourced_ros(os.environ)
    if not workspace.python.exists():
        workspace.empty()
    place = digest([str(workspace.root), *map(str, sys.version_info[:2])])
    changed = workspace.step("environment", place, lambda: make_environment(workspace, sourced))
    ros = workspace.ros
    if sourced and not ros and workspace.keys().get("ros set aside") != str(sourced):
        say("keeping the wheel's ROS 2; for the one sourced here: make distclean, and again")

    base = ["runtime", "build"] if ros else ["runtime", "build", "ros_cli"]
    changed |= install_packages(workspace, base, extras)
    if not ros:
        wheel = digest([workspace.requirements("ros_wheel").read_bytes()])
        changed |= workspace.step("ros_wheel", wheel, lambda: install_ros_wheel(workspace))
    for extra in extras:
        changed |= install_no_deps(workspace, extra)
    shim = digest(
        path.read_bytes() for path in sorted((workspace.root / "tools/ros2_shim").rglob("*.py"))
    )
    changed |= workspace.step("ros2_shim", shim, lambda: install_ros_shim(workspace))
    linked = workspace.root / "install" / "grpo_ros" / "share" / "grpo_ros" / "package.xml"
    if not linked.is_symlink():  # removed, or built by hand with copies instead of links
        workspace.record("build", "")
    changed |= workspace.step("build", build_key(workspace), lambda: build(workspace))
    return changed


def main(extras: Sequence[str]) -> int:
    """Set up with these extras; return 0, or 1 after one line with the remedy."""
    workspace = Workspace(Path(__file__).resolve().parent.parent)
    lock = os.open(workspace.root, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one set-up at a time in one checkout
        if set_up(workspace, extras):
            renderer = missing_renderer()
            if renderer:
                say(renderer)
            say("done; `source activate.sh` brings ros2 and grpo-ros into a shell")
        return 0
    except SetUpError as error:
        remedy = str(error)
    except OSError as error:
        remedy = str(failure("writing", str(error), workspace.venv))
    except KeyboardInterrupt:
        remedy = "interrupted; the next make goes on from here"
    finally:
        os.close(lock)
    log = workspace.log.relative_to(workspace.root) if workspace.log.exists() else "none"
    print(f"set-up: {remedy} (full log: {log})", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
