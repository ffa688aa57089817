"""Runs the measurements and prints a table: `python -m bench [name ...]`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table

from bench import (
    deployment_latency,
    gymnasium_tasks,
    images,
    inference,
    isaac_lab,
    kill_server,
    monitoring,
    placement,
    safety_gate,
    simulator,
    update,
)

BENCHES: dict[str, Callable[[], Iterator[tuple[str, str, str]]]] = {
    "simulator loop, N = 256": simulator.loop,
    "snapshots, N = 256": simulator.snapshot,
    "observed images, N = 256": images.observed,
    "placement of the simulator, N = 256, chunks of 4": placement.separate,
    "inference, one observation": inference.onnx,
    "safety gate, latency, 7 joints at 20 Hz": safety_gate.latency,
    "safety gate, hostile, a million steps": safety_gate.hostile,
    "update, 2048 samples, 2 x 64, 320 steps": update.ppo,
    "monitoring of a training run": monitoring.cost,
    "latency of the policy server": deployment_latency.latency,
    "kill the policy server in mid-motion": kill_server.kills,
    "returns on Gymnasium tasks, 5 seeds": gymnasium_tasks.returns,
    "isaaclab on Newton": isaac_lab.newton,
}
ONLY_IF_NAMED = (
    "monitoring of a training run",
    "latency of the policy server",
    "kill the policy server in mid-motion",
    "safety gate, hostile, a million steps",
    "returns on Gymnasium tasks, 5 seeds",
    "isaaclab on Newton",
)
"""ROS nodes, and minutes; ten minutes; half an hour; an extra that is not always there."""


def main(chosen: list[str]) -> int:
    """Run the benches whose name contains one of `chosen`, or all but the long ones.

    Returns:
        0, or 2 where one of `chosen` is in no bench's name.
    """
    unknown = [word for word in chosen if not any(word in name for name in BENCHES)]
    if unknown:
        names = "".join(f"\n  {name}" for name in BENCHES)
        print(f"no bench has {' or '.join(unknown)} in its name:{names}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    console = Console()
    console.print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    for name, bench in BENCHES.items():
        is_chosen = any(word in name for word in chosen) if chosen else name not in ONLY_IF_NAMED
        if not is_chosen:
            continue
        table = Table("what", "median or mean", "spread", title=name)
        for row in bench():
            table.add_row(*row)
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
