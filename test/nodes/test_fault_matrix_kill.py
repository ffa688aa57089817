"""Killed servers, and every output on the simulated arm: docs/reference/faults.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from fault_policies import export_orbit  # noqa: E402
from killed_server import killing  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]


def test_a_killed_server_leaves_an_arm_that_stops_and_a_new_one_moves_nothing_until_started(
    tmp_path: Path,
) -> None:
    """R1: kill -9 in mid-motion, twice at random instants."""
    random = np.random.default_rng(5)
    with killing(tmp_path, export_orbit(tmp_path / "orbit.onnx")) as trials:
        for _ in range(2):
            found = trials.kill(random.uniform(0.0, 1.0))
            assert found.speed > 0.05
            assert 0.0 < found.rest_s < 1.0 and found.way > 0.0
            assert found.position <= 1.0 + 1e-6
            assert found.velocity <= 1.0 + 1e-3 and found.acceleration <= 1.0 + 1e-3
            assert found.crept == 0.0
        assert trials.ask("start")
        assert trials.ask("stop")
