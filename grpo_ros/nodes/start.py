"""The nodes' commands: a signal during the imports, which take seconds, ends them quietly.

A launch may have to end at once what it has just started, where another node refuses to run.
"""

from __future__ import annotations

import importlib
from typing import Any

from grpo_ros.interrupts import Interrupts


def simulator_bridge() -> int:
    """Run the simulator bridge; return its exit code."""
    return _run("simulator_bridge")


def batch_bridge() -> int:
    """Run the batch bridge; return its exit code."""
    return _run("batch_bridge")


def learner() -> int:
    """Run the learner; return its exit code."""
    return _run("learner")


def policy_server() -> int:
    """Run the policy server; return its exit code."""
    return _run("policy_server")


def evaluator() -> int:
    """Run the evaluator; return its exit code."""
    return _run("evaluator")


def _run(node: str) -> int:
    Interrupts()  # until the node takes signals itself
    module: Any = importlib.import_module(f"grpo_ros.nodes.{node}")
    code: int = module.main()
    from grpo_ros.nodes.process import leave

    leave(code)
