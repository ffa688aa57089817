"""Our two setups in enclaves of their own: a training, and a deployment in the simulator."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deploy_helpers import ENDLESS_TRAINING, NodeProcess, arguments_of

from grpo_ros.nodes.launching import ENCLAVES
from grpo_ros.nodes.security import Policy, observed

UP_S, SETTLED_S = 120.0, 4.0


def enclosed(name: str, home: Path, /, settings: Sequence[str] = (), **given: Any) -> NodeProcess:
    """Return a node in its enclave."""
    enclave = ["--ros-args", "--enclave", f"{ENCLAVES}/{name}", "--"]
    return NodeProcess(name, home / f"{name}.log", settings=[*settings, *enclave], **given)


@contextlib.contextmanager
def training(folder: Path, is_separate: bool = False) -> Iterator[list[NodeProcess]]:
    """Run a training that does not end, and a recorder."""
    settings = arguments_of({"task": "pick_place", **ENDLESS_TRAINING, "output": folder / "runs"})
    nodes = [enclosed("recorder", folder, folder=folder)]
    if is_separate:
        nodes.append(enclosed("batch_bridge", folder, settings=settings))
        settings += ["bridge.placement=separate", "bridge.attach=batch_bridge"]
    nodes.append(enclosed("learner", folder, settings=settings))
    with stopped_at_the_end(nodes):
        yield nodes


@contextlib.contextmanager
def deployment(folder: Path, policy: Path, **given: Any) -> Iterator[list[NodeProcess]]:
    """Run bridge, policy server, evaluator and a recorder; the evaluator is the last."""
    common = {"policy": policy, "lock_step": True} | given
    episodes = common.pop("episodes", 10_000)
    trials = {"episodes": episodes, "compare_in_process": False}
    nodes = [
        enclosed("recorder", folder, folder=folder),
        enclosed("simulator_bridge", folder, **common),
        enclosed("policy_server", folder, **common, use_sim_time=True),
        enclosed("evaluator", folder, **common, **trials),
    ]
    with stopped_at_the_end(nodes):
        yield nodes


@contextlib.contextmanager
def stopped_at_the_end(nodes: list[NodeProcess]) -> Iterator[None]:
    """Stop what still runs, the recorder last."""
    try:
        yield
    finally:
        for node in reversed(nodes):
            node.stop()


def settled(node: Any, nodes: list[NodeProcess], topic: str) -> Policy:
    """Return what the nodes do, once a topic is published and nothing has changed for a while."""
    deadline, seen, since_s = time.monotonic() + UP_S, {}, time.monotonic()
    while True:
        now_s = time.monotonic()
        for process in nodes:
            assert process.process.poll() is None, process.output
        assert now_s < deadline, f"{topic} did not come up, or nodes do not settle: {seen}"
        found = observed(node)
        if found != seen or not is_published(node, topic):
            seen, since_s = found, now_s
        elif now_s - since_s > SETTLED_S and len(found) == len(nodes):
            return found
        time.sleep(0.25)


def is_published(node: Any, topic: str) -> bool:
    """Return whether a topic is published by one of our nodes."""
    return bool(node.count_publishers(topic))
