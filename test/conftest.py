"""How tests share the cores, and the toy contract of tests of algorithms, policies and exports."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from grpo_ros.contract import ActionField, Contract, ObservationField, Source

NODES = Path(__file__).parent / "nodes"
MACHINE = "machine"
"""The group of tests of which one runs at a time."""
NICENESS = 10
"""Of the processes that run the others beside it."""
_waits_for_nodes = False


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pytest-xdist run a file's tests in one process, and all tests of nodes in the same one.

    Nodes are held to deadlines and talk over one ROS domain, so that two of their tests at a time
    would disturb each other. They are the largest group, so they begin. A file that says which
    group it belongs to keeps to it.
    """
    groups: dict[pytest.Item, str] = {}
    for item in items:
        if marker := item.get_closest_marker("xdist_group"):
            groups[item] = marker.args[0]
            continue
        groups[item] = MACHINE if NODES in item.path.parents else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: groups[item] != MACHINE)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what has no deadlines wait for the nodes, which have, where both share the cores.

    A process cannot take back its niceness; the one that runs nodes begins with them.
    """
    global _waits_for_nodes
    if _waits_for_nodes or "PYTEST_XDIST_WORKER" not in os.environ:
        return
    marker = item.get_closest_marker("xdist_group")
    if marker is None or marker.args[0] != MACHINE:
        os.nice(NICENESS)
        _waits_for_nodes = True


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., Contract]:
    """Builds a contract with two fields (3 and 2 numbers), chunks of K and A action components."""

    def build(chunk_size: int = 4, action_size: int = 2) -> Contract:
        names = tuple(f"a{i}" for i in range(action_size))
        return Contract(
            task="toy",
            instruction="",
            embodiment="toy",
            robot_sha256="0",
            observation=(
                ObservationField("tip", (3,), Source("position")),
                ObservationField("gap", (2,), Source("position")),
            ),
            action=(ActionField("arm", "joint_delta", names, (0.1,) * action_size),),
            chunk_size=chunk_size,
            num_executed=chunk_size,
        )

    return build
