"""What the policy server tells about its health, as diagnostic values."""

from __future__ import annotations

from grpo_ros.deployment.latency import LatencyWindow
from grpo_ros.deployment.policy_runner import PolicyRunner


def health(runner: PolicyRunner) -> dict[str, object]:
    """Return phase, counts of interventions, holds and refused inputs, and latencies in ms."""
    values: dict[str, object] = {"phase": runner.phase, "periods": runner.num_periods}
    for title, counts in (
        ("gate", runner.gate.counts),
        ("held", runner.held),
        ("rejected", runner.buffer.rejected),
    ):
        values.update({f"{title}.{kind}": number for kind, number in counts.items()})
    if runner.buffer.last_rejection:
        values["rejected.last"] = runner.buffer.last_rejection
    values.update(quantiles("observation_age", runner.observation_age))
    values.update(quantiles("inference", runner.inference))
    return values


def quantiles(title: str, window: LatencyWindow) -> dict[str, object]:
    """Return the quantiles of one latency, e.g. `inference_ms.p99`."""
    return {
        f"{title}_ms.p{100 * share:g}": f"{value:.3f}"
        for share, value in window.quantiles_ms().items()
    }
