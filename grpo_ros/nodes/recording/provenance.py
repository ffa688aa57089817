"""Where a bag comes from: what the black box and the recorder write into theirs."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import subprocess
from pathlib import Path

from grpo_ros import __version__
from grpo_ros.contract import Contract
from grpo_ros.errors import PolicyFileError
from grpo_ros.versions import versions

GIT_TIMEOUT_S = 2.0


def host_provenance() -> dict[str, str]:
    """Return versions: the package's, its commit where it runs from a clone, ROS and machine."""
    return {
        "grpo_ros": __version__,
        "git_commit": git_commit(),
        "ros_distro": os.environ.get("ROS_DISTRO", "unknown"),
        "rmw": os.environ.get("RMW_IMPLEMENTATION", "default"),
        "versions": json.dumps({**versions(), "host": platform.platform()}),
    }


def file_provenance(path: Path) -> dict[str, str]:
    """Return a policy file's name and hash.

    Raises:
        OSError: it cannot be read.
    """
    return {
        "policy": path.name,
        "policy_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def contract_provenance(contract: Contract, robot: str = "") -> dict[str, str]:
    """Return what a contract says about task and robot.

    Args:
        contract: of the policy.
        robot: that is meant; empty: the contract's.
    """
    return {
        "contract_sha256": contract.sha256,
        "task": contract.task,
        "robot": robot or contract.embodiment,
    }


def policy_provenance(path: Path) -> dict[str, str]:
    """Return the name and hash of a policy file, its task and its robot; nothing is run.

    Raises:
        PolicyFileError: it is absent, or no policy file.
    """
    from grpo_ros.export.graph_file import EXPORT_AGAIN, MAX_BYTES, parse_graph, read_graph
    from grpo_ros.export.metadata import CONTRACT_KEY

    model = parse_graph(path, read_graph(path, MAX_BYTES))
    texts = [entry.value for entry in model.metadata_props if entry.key == CONTRACT_KEY]
    if len(texts) != 1:
        raise PolicyFileError(f"{path}: no contract in it", remedy=EXPORT_AGAIN)
    return {**file_provenance(path), **contract_provenance(Contract.from_json(texts[0]))}


@functools.cache
def git_commit() -> str:
    """Return the commit of the clone that this package runs from; empty where there is none."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            env={k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
