"""A policy server and a played robot, for the tests of deployed faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def nobody_stays() -> Iterator[None]:
    """End what a file's tests left running: it would answer in place of the next ones' nodes."""
    yield
    from deploy_helpers import NodeProcess

    for process in list(NodeProcess.running):
        process.stop()


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client that hears what the server says."""
    from fault_harness import listening_client

    with listening_client() as client:
        yield client


@pytest.fixture(scope="module")
def server(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server of a policy that goes round and round."""
    from fault_harness import served
    from fault_policies import export_orbit

    folder = tmp_path_factory.mktemp("served")
    with served(client, folder, export_orbit(folder / "orbit.onnx")) as server:
        yield server


@pytest.fixture
def robot(client: Any) -> Iterator[Any]:
    """A robot that follows what it is sent, as a stock controller does."""
    from played_robot import PlayedRobot

    from grpo_ros.robots.robot import load_robot

    robot = PlayedRobot(client.node, load_robot("franka_fr3"))
    yield robot
    robot.close()
