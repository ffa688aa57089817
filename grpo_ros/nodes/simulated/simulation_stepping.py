"""StepSimulation and SimulateSteps of a paused simulation.

Steps are taken in slices between other callbacks, so that many of them neither stop the node from
answering nor keep a goal from being cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy.clock
from rclpy.action import CancelResponse
from rclpy.clock import ClockType
from rclpy.task import Future
from simulation_interfaces.action import SimulateSteps
from simulation_interfaces.srv import StepSimulation

from grpo_ros.deployment.simulation.refusal import Refusal
from grpo_ros.nodes.shared.action_goals import serve
from grpo_ros.nodes.simulated.simulation_answers import answer_with, refusal_of

SLICE_S = 0.02
"""Wall-clock time of steps between other callbacks."""
TICK_S = 1e-3


class Stepper:
    """Offers single steps of a node's paused simulation, one request at a time.

    Args:
        node: that offers them.
        check: raises Refusal where no steps can be taken now.
        step: takes one physics step.
        show: publishes the whole state.
    """

    def __init__(
        self,
        node: Any,
        check: Callable[[], None],
        step: Callable[[], None],
        show: Callable[[], None],
    ) -> None:
        self.node, self._check, self._step, self._show = node, check, step, show
        self._remaining = self._completed = 0
        self._on_step: Callable[[int, int], None] | None = None
        self._ended: Future | None = None
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(TICK_S, self._on_tick, clock=wall, autostart=False)
        self._service = node.create_service(StepSimulation, "step_simulation", self._on_service)
        self._action = serve(
            node, SimulateSteps, "simulate_steps", self._on_action, self._on_cancel
        )

    def stop(self, why: str) -> None:
        """End the request that is under way, if there is one."""
        if self._ended is not None:
            total = self._completed + self._remaining
            what = f"{why} after {self._completed} of {total} steps"
            self._end(Refusal("RESULT_OPERATION_FAILED", what))

    async def _on_service(self, request: Any, response: Any) -> Any:
        answer_with(response, await self._simulated(request.steps, None))
        return response

    async def _on_action(self, handle: Any) -> SimulateSteps.Result:
        def report(completed: int, remaining: int) -> None:
            feedback = SimulateSteps.Feedback()
            feedback.completed_steps, feedback.remaining_steps = completed, remaining
            handle.publish_feedback(feedback)

        refusal = await self._simulated(handle.request.steps, report)
        if handle.is_cancel_requested:
            handle.canceled()
        elif refusal is None:
            handle.succeed()
        else:
            handle.abort()
        result = SimulateSteps.Result()
        answer_with(result, refusal)
        return result

    def _on_cancel(self, _: Any) -> CancelResponse:
        self.stop("cancelled")
        return CancelResponse.ACCEPT

    async def _simulated(
        self, steps: int, on_step: Callable[[int, int], None] | None
    ) -> Refusal | None:
        """Take steps; return why they were not all taken, if they were not."""
        try:
            self._check()
        except Refusal as refusal:
            return refusal
        if self._ended is not None:
            return Refusal(
                "RESULT_OPERATION_FAILED", f"{self._remaining} steps of another request are left"
            )
        if steps == 0:
            return None
        self._remaining, self._completed, self._on_step = steps, 0, on_step
        self._ended = Future()
        self._timer.reset()
        return await self._ended

    def _on_tick(self) -> None:
        """Take steps for a slice of time."""
        until_s = time.monotonic() + SLICE_S
        while self._ended is not None and time.monotonic() < until_s:
            try:
                self._step()
            except Exception as problem:  # the caller has to be answered
                self._end(refusal_of(self.node, "step", problem))
                return
            self._remaining -= 1
            self._completed += 1
            if self._on_step is not None:
                self._on_step(self._completed, self._remaining)
            if self._remaining == 0:
                self._show()
                self._end(None)

    def _end(self, refusal: Refusal | None) -> None:
        ended, self._ended = self._ended, None
        self._timer.cancel()
        if ended is not None:
            ended.set_result(refusal)
