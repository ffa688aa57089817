"""A policy server killed at random instants: how the simulated arm comes to rest.

The server commands the free-running simulator bridge over ROS and is ended by SIGKILL in
mid-motion. What the arm's controller commands from then on is its reference in `controller_state`;
shares are of the contract's limits. A new server is up for half a second before it is started.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import ros_helpers  # noqa: F401 - finds the tests' helpers

Row = tuple[str, str, str]


def kills(num: int = 20, seed: int = 0) -> Iterator[Row]:
    """Kill the server `num` times, each up to 1.5 s after the arm began to move."""
    from fault_policies import export_orbit
    from killed_server import killing

    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with killing(folder, export_orbit(folder / "orbit.onnx")) as trials:
            found = [trials.kill(random.uniform(0.0, 1.5)) for _ in range(num)]
    for what, key, unit in (
        ("speed of the fastest joint when killed", "speed", "rad/s"),
        ("time to rest", "rest_s", "s"),
        ("way to rest, farthest joint", "way", "rad"),
        ("share of the position limits", "position", ""),
        ("share of the velocity limits", "velocity", ""),
        ("share of the acceleration limits", "acceleration", ""),
        ("moved by a new server before ~/start", "crept", "rad"),
    ):
        values = np.array([getattr(one, key) for one in found])
        spread = f"{values.min():.3f} to {values.max():.3f}"
        yield f"{num} kills: {what}", f"{np.median(values):.3f} {unit}".strip(), spread
