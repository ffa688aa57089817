"""Transfer: what a policy is worth in a simulator that it was not trained in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grpo_ros.deployment.simulation.simulated_task import in_process_outcomes, run_config
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.simulators.registry import SIMULATORS
from grpo_ros.training.evaluation import held_out_keys
from grpo_ros.training.statistics import paired_difference


def transfer_table(
    policies: Sequence[Path], episodes: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Return a row per policy and simulator, on the same held-out initial states.

    Args:
        policies: ONNX files, each beside its run's configuration.
        episodes: E, initial states.
        say: told each row as a line of a Markdown table.

    Returns:
        rows, JSON-ready: policy, its hash, task, trained_in, simulator, successes, episodes,
        wilson_95, and difference: success here minus where it was trained, with its 95 % interval
        over pairs.
    """
    keys = held_out_keys(episodes)
    say("| policy of | trained in | simulated in | success | against where it was trained |")
    say("| --- | --- | --- | --- | --- |")
    rows: list[dict[str, Any]] = []
    for path in policies:
        policy, folder = load_policy_file(path), path.resolve().parent
        task = policy.contract.task
        home = run_config(policy.contract, folder).simulator
        own = None
        for simulator in sorted(SIMULATORS, key=lambda name: name != home):
            result = in_process_outcomes(policy, keys, folder, simulator)
            row: dict[str, Any] = {
                "policy": str(path),
                "policy_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "task": task,
                "trained_in": home,
                "simulator": simulator,
                **result.to_json(),
                "outcome": [int(outcome) for outcome in result.outcome.tolist()],
            }
            against = ""
            if own is None:
                own = result
            else:
                mean, *interval = paired_difference(result.outcome.numpy(), own.outcome.numpy())
                row["difference"], row["difference_95"] = mean, interval
                against = f"{mean:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"
            rows.append(row)
            say(f"| {task} | {home} | {simulator} | {result} | {against} |")
    return rows
