"""A simulator's report: the conformance suite and the drift of its restores, as data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.conformance import NUM_ENVS, CheckResult, run_conformance
from grpo_ros.simulators.measured import measure


def check_simulator(
    make: Callable[[int], Simulator], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what held of a simulator, JSON-ready.

    Args:
        make: number of environments -> simulator; at most one is open at a time.
        say: told each check's result as it comes.

    Returns:
        checks (name, passed, detail), passed, capabilities (claimed and measured), seconds.
    """
    began = time.monotonic()
    simulator = make(NUM_ENVS)
    try:
        measured = measure(simulator)
        claimed = simulator.capabilities
    finally:
        simulator.close()
    say(str(measured))

    def tell(result: CheckResult) -> None:
        say(f"{'passed' if result.passed else 'FAILED'}  {result.name}  {result.detail}".rstrip())

    checks = run_conformance(make, tell)
    return {
        "checks": [dataclasses.asdict(result) for result in checks],
        "passed": sum(result.passed for result in checks),
        "capabilities": {
            "claimed": dataclasses.asdict(claimed),
            "measured": dataclasses.asdict(measured),
        },
        "seconds": round(time.monotonic() - began, 1),
    }
