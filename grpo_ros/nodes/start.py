"""The nodes' commands: a signal during the imports, which take seconds, ends them quietly.

A launch may have to end at once what it has just started, where another node refuses to run.
"""

from __future__ import annotations

import importlib
import os
import signal
from functools import partial
from typing import Any, NoReturn


def _run(node: str) -> NoReturn:
    """Run a node, and leave with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # until the node takes signals itself
        signal.signal(number, _end_at_once)
    module: Any = importlib.import_module(f"grpo_ros.nodes.{node}")
    code: int = module.main()
    from grpo_ros.nodes.shared.process import leave

    leave(code)


def _end_at_once(number: int, _: Any) -> NoReturn:
    """Leave: there is nothing yet to save, and what is raised in an import may be printed."""
    os._exit(128 + number)


batch_bridge = partial(_run, "batch_bridge")
browser_view = partial(_run, "browser_view")
evaluator = partial(_run, "evaluator")
learner = partial(_run, "learner")
policy_server = partial(_run, "policy_server")
recorder = partial(_run, "recorder")
rollout_player = partial(_run, "rollout_player")
simulator_bridge = partial(_run, "simulator_bridge")
