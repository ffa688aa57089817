"""The `ros2` executable."""

import sys


def main() -> None:
    """Run ros2cli; leave with its exit status, or with 1 and its one-line message."""
    from ros2cli.cli import main as ros2

    sys.exit(ros2())
