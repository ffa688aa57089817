"""The nodes' commands: a signal during the imports, which take seconds, ends them quietly.

A launch may have to end at once what it has just started, where another node refuses to run.
"""

from __future__ import annotations

import importlib
import os
import signal
from typing import Any, NoReturn


def simulator_bridge() -> NoReturn:
    """Run the simulator bridge, and leave with its exit code."""
    _run("simulator_bridge")


def batch_bridge() -> NoReturn:
    """Run the batch bridge, and leave with its exit code."""
    _run("batch_bridge")


def learner() -> NoReturn:
    """Run the learner, and leave with its exit code."""
    _run("learner")


def policy_server() -> NoReturn:
    """Run the policy server, and leave with its exit code."""
    _run("policy_server")


def evaluator() -> NoReturn:
    """Run the evaluator, and leave with its exit code."""
    _run("evaluator")


def rollout_player() -> NoReturn:
    """Run the rollout player, and leave with its exit code."""
    _run("rollout_player")


def browser_view() -> NoReturn:
    """Run the browser view, and leave with its exit code."""
    _run("browser_view")


def recorder() -> NoReturn:
    """Run the recorder, and leave with its exit code."""
    _run("recorder")


def _run(node: str) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):  # until the node takes signals itself
        signal.signal(number, _end_at_once)
    module: Any = importlib.import_module(f"grpo_ros.nodes.{node}")
    code: int = module.main()
    from grpo_ros.nodes.process import leave

    leave(code)


def _end_at_once(number: int, _: Any) -> NoReturn:
    """Leave: there is nothing yet to save, and what is raised in an import may be printed."""
    os._exit(128 + number)
