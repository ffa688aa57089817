"""A node that is told to end while it still imports does so without a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

NODES = sorted(path.name for path in (Path(__file__).parents[2] / "scripts").iterdir())
INTERRUPTED = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "rclpy":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from grpo_ros.nodes import start
sys.exit(getattr(start, sys.argv[1])())
"""


@pytest.mark.parametrize("node", NODES)
def test_a_signal_during_the_imports_ends_a_node_quietly(node: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, node], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
