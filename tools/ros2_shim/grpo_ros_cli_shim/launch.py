"""`ros2 launch`, on the public API of launch and ros2cli."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ros2cli.command import CommandExtension


class LaunchCommand(CommandExtension):
    """Run a launch file"""  # noqa: D400  (shown by `ros2 --help`, in the style of the other verbs)

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare the options of the official verb that the launch API itself can serve."""
        is_terminal = bool(sys.stdin) and sys.stdin.isatty()
        add = parser.add_argument
        add(
            "-n",
            "--noninteractive",
            default=not is_terminal,
            action="store_true",
            help="run without a terminal",
        )
        add("-d", "--debug", action="store_true", help="put the launch system in debug mode")
        add(
            "-p",
            "--print",
            "--print-description",
            action="store_true",
            help="print the description, start nothing",
        )
        add(
            "-s",
            "--show-args",
            "--show-arguments",
            action="store_true",
            help="print the arguments, start nothing",
        )
        add("package_name", help="a package, or the path of a launch file")
        add("launch_file_name", nargs="?", help="the launch file in the package")
        add(
            "launch_arguments",
            nargs="*",
            metavar="name:=value",
            help="arguments of the launch file",
        )

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
        """Return the exit status of the launch; a RuntimeError becomes one line and status 1."""
        path, words = resolve(args.package_name, args.launch_file_name, args.launch_arguments)
        arguments = parse_arguments(words)
        if args.show_args or args.print:
            description = load(path)
            print(
                show_arguments(description) if args.show_args else show_description(description),
                end="",
            )
            return 0
        return run(path, arguments, noninteractive=args.noninteractive, debug=args.debug)


def resolve(package: str, file_name: str | None, words: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the path of the launch file, and the words that are its arguments."""
    if file_name is None or ":=" in file_name:
        path = Path(package)
        if path.is_file():
            return path, [*([file_name] if file_name else []), *words]
        if os.sep in package or path.suffix:
            raise RuntimeError(f"ros2 launch: there is no launch file '{package}'")
        raise RuntimeError(f"ros2 launch: name a launch file of the package '{package}'")
    return find_in_package(package, file_name), list(words)


def find_in_package(package: str, file_name: str) -> Path:
    """Return the only file of this name that the package shares."""
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        share = Path(get_package_share_directory(package))
    except (PackageNotFoundError, ValueError) as error:
        raise RuntimeError(
            f"ros2 launch: package '{package}' not found: is its workspace sourced?"
        ) from error
    files = [
        Path(folder, name)
        for folder, _, names in os.walk(share, followlinks=True)
        for name in names
        if not name.endswith(".pyc")
    ]
    found = [path for path in files if path.name == file_name]
    if len(found) == 1:
        return found[0]
    if found:
        raise RuntimeError(
            f"ros2 launch: '{file_name}' is not unique: {', '.join(map(str, found))}"
        )
    known = sorted(path.name for path in files if ".launch." in path.name)
    raise RuntimeError(
        f"ros2 launch: package '{package}' has no '{file_name}', but {', '.join(known) or 'none'}"
    )


def parse_arguments(words: Sequence[str]) -> dict[str, str]:
    """Return the launch arguments by name; of two with one name the last counts."""
    pairs = [word.partition(":=") for word in words]
    for name, sign, value in pairs:
        if not (name and sign):
            raise RuntimeError(f"ros2 launch: expected name:=value, got '{name}{sign}{value}'")
    return {name: value for name, _, value in pairs}


def load(path: Path) -> Any:
    """Return the launch description in a Python, XML or YAML launch file."""
    from launch.launch_description_sources import get_launch_description_from_any_launch_file

    try:
        return get_launch_description_from_any_launch_file(str(path))
    except Exception as error:  # a launch file is foreign code
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RuntimeError(f"ros2 launch: cannot load '{path}': {reason}") from error


def show_description(description: Any) -> str:
    """Return the tree of actions as text."""
    import launch

    return f"{launch.LaunchIntrospector().format_launch_description(description)}\n"


def show_arguments(description: Any) -> str:
    """Return the declared arguments, as the official verb prints them."""
    lines = ["Arguments (pass arguments as '<name>:=<value>'):\n"]
    declared = description.get_launch_arguments()
    for argument in declared:
        lines.append(f"\n    '{argument.name}':")
        lines.append(f"        {argument.description}")  # choices included
        if argument.default_value is not None:
            default = " + ".join(part.describe() for part in argument.default_value)
            lines.append(f"        (default: {default or repr('')})")
    if not declared:
        lines.append("\n  No arguments.")
    return "\n".join(lines) + "\n"


def run(path: Path, arguments: dict[str, str], *, noninteractive: bool, debug: bool) -> int:
    """Return the exit status of the launch service."""
    import launch
    from launch.actions import IncludeLaunchDescription

    description = load(path)
    warn_of_undeclared(description, arguments)
    service = launch.LaunchService(
        argv=[f"{name}:={value}" for name, value in arguments.items()],
        noninteractive=noninteractive,
        debug=debug,
    )
    source = launch.LaunchDescriptionSource(description, str(path))
    include = IncludeLaunchDescription(source, launch_arguments=arguments.items())
    service.include_launch_description(launch.LaunchDescription([include]))
    return int(service.run())


def warn_of_undeclared(description: Any, arguments: dict[str, str]) -> None:
    """Say which arguments no file declares: launch would pass a misspelt one over in silence."""
    declared = [argument.name for argument in description.get_launch_arguments()]
    for name in arguments.keys() - set(declared):
        if "." in name:  # a node's own setting, which the launch file passes on
            continue
        near = difflib.get_close_matches(name, declared, n=1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        print(f"ros2 launch: the launch file declares no argument '{name}'{hint}", file=sys.stderr)
