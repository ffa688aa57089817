"""Decider: asks the policy for chunks and hands them to the executor, in time or late."""

from __future__ import annotations

import time
from collections.abc import Callable

from grpo_ros.deployment.chunk_executor import ChunkExecutor
from grpo_ros.deployment.inference import Inference
from grpo_ros.deployment.inputs.observation_buffer import Reading
from grpo_ros.deployment.measurements import MeasurementWindow
from grpo_ros.deployment.policy_input import PolicyInput
from grpo_ros.errors import PolicyFileError


class Decider:
    """One request at a time; what it asked for goes to the executor when it comes.

    Args:
        executor: takes chunks, and says when one is wanted.
        inference: runs the policy.
        inputs: of the policy.
        patience_s: how long a tick waits for a chunk that is due.
    """

    def __init__(
        self,
        executor: ChunkExecutor,
        inference: Inference,
        inputs: PolicyInput,
        patience_s: float,
    ) -> None:
        self.executor, self.inference, self.inputs = executor, inference, inputs
        self.patience_s = patience_s
        self.inference_time = MeasurementWindow()
        self.forget()

    def forget(self) -> None:
        """Begin a run: nothing that was asked for counts any more."""
        self.inference.forget()
        self.num_failures = 0
        """Inferences in a row that failed."""
        self.is_late = self.has_new = False
        """Whether a chunk is due that has not come; whether one came with the last tick."""
        self._late_since_s: float | None = None

    @property
    def wants_input(self) -> bool:
        """Whether the policy is to be asked now."""
        return self.executor.wants_inference and not self.inference.is_busy

    @property
    def is_idle(self) -> bool:
        """Whether a chunk is due that nobody has been asked for."""
        return self.executor.needs_inference and not self.inference.is_busy

    def ask(self, reading: Reading, holds: bool) -> bool:
        """Ask for a chunk from what was observed; return whether that was done.

        Args:
            reading: what was observed.
            holds: whether an observation outside what training saw is not asked about.
        """
        executor = self.executor
        obs = self.inputs.of(reading, executor.state, executor.last_action)
        if holds and self.inputs.outside:
            return False
        self.inference.submit(executor.now, obs)
        return True

    def take(self, before_load: Callable[[], None]) -> str:
        """Take a chunk that has come; return what was wrong with it, empty if nothing.

        Args:
            before_load: called before the executor takes it.
        """
        executor = self.executor
        patience_s = self.patience_s if executor.needs_inference else 0.0
        answer = self.inference.poll(patience_s)
        self.has_new = False
        if answer is not None:
            problem = answer.problem
            if answer.chunk is not None:
                try:
                    before_load()
                    executor.load(answer.chunk, answer.tag)
                    self.has_new = True
                except PolicyFileError as refused:
                    problem = str(refused)
            if not self.has_new:
                self.num_failures += 1
                return problem
            self.inference_time.add(answer.seconds)
            self.num_failures, self._late_since_s = 0, None
        self.is_late = executor.needs_inference
        return ""

    def waited_s(self) -> float:
        """Return for how long the executor has had nothing to execute, s."""
        now_s = time.monotonic()
        self._late_since_s = self._late_since_s or now_s
        return now_s - self._late_since_s
