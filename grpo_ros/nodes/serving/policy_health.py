"""What the policy server tells about its health, as diagnostic values."""

from __future__ import annotations

import time

from grpo_ros.deployment.measurements import MeasurementWindow
from grpo_ros.deployment.policy_runner import PolicyRunner


class PolicyHealth:
    """Measures ticks and the way from input to command."""

    def __init__(self) -> None:
        self.input_to_command = MeasurementWindow()
        self.num_missed = 0
        """Control periods in which no tick came."""
        self._arrival_s = 0.0
        self._tick_s: float | None = None

    def note_input(self) -> None:
        """An input has arrived."""
        self._arrival_s = time.perf_counter()

    def note_command(self) -> None:
        """A command has been handed to the middleware."""
        self.input_to_command.add(time.perf_counter() - self._arrival_s)

    def note_tick(self, runner: PolicyRunner) -> None:
        """A tick begins; those that were due since the last one were missed."""
        now_s = time.monotonic()
        if self._tick_s is not None and runner.phase == "running":
            self.num_missed += max(0, round((now_s - self._tick_s) / runner.period_s) - 1)
        self._tick_s = now_s

    def values(self, runner: PolicyRunner, now_ns: int) -> dict[str, object]:
        """Return phase, counts of interventions, holds and refused inputs, ages, latencies."""
        values: dict[str, object] = {
            "phase": runner.phase,
            "periods": runner.num_periods,
            "missed_periods": self.num_missed,
            "tracking_error": f"{runner.faults.tracking_error:.4f}",
        }
        for title, counts in (
            ("gate", runner.gate.counts),
            ("held", runner.held),
            ("rejected", runner.buffer.rejected),
            ("out_of_range", runner.input.range.counts),
        ):
            values.update({f"{title}.{kind}": number for kind, number in counts.items()})
        if runner.buffer.last_rejection:
            values["rejected.last"] = runner.buffer.last_rejection
        for name, age_s in runner.buffer.ages(now_ns).items():
            values[f"age_ms.{name}"] = f"{1e3 * age_s:.1f}"
        for title, window in (
            ("observation_age", runner.observation_age),
            ("inference", runner.decider.inference_time),
            ("input_to_command", self.input_to_command),
        ):
            values.update(quantiles(f"{title}_ms", window, 1e3))
        values.update(quantiles("seam_position", runner.seam_position, 1.0))
        values.update(quantiles("seam_velocity", runner.seam_velocity, 1.0))
        return values


def quantiles(title: str, window: MeasurementWindow, factor: float) -> dict[str, object]:
    """Return the quantiles of one measurement, e.g. `inference_ms.p99`."""
    return {
        f"{title}.p{100 * share:g}": f"{factor * value:.4g}"
        for share, value in window.quantiles().items()
    }
