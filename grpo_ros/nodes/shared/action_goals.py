"""Action goals whose end is decided elsewhere than in their execute callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from rclpy._rclpy_pybind11 import GoalEvent
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import default_goal_callback, default_handle_accepted_callback
from rclpy.task import Future

from grpo_ros.nodes.shared.lifecycle import guarded

GoalStatus = Literal["succeeded", "aborted", "canceled"]
RESULT_TIMEOUT_S = 60
"""How long a result waits for its client, who may be waiting for another one first."""


class ActiveGoal:
    """The goal that an action server is after, at most one.

    Execute callbacks `await handle.ended`, which gives status and result.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        """The goal's handle; None if there is none."""
        return self._handle

    def begin(self, handle: Any) -> None:
        """Make a goal the active one, and execute it; the one before has been ended."""
        assert self._handle is None
        handle.ended, self._handle = Future(), handle
        handle.execute()

    def end(self, status: GoalStatus, result: Any) -> None:
        """End the active goal, if there is one."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.ended.set_result((status, result))


async def run(handle: Any) -> Any:
    """Wait for a goal's end, set its status and return its result: an execute callback."""
    status, result = await handle.ended
    if status == "succeeded":
        handle.succeed()
    elif status == "aborted":
        handle.abort()
    else:
        if not handle.is_cancel_requested:
            # rclpy lets only a client begin a cancellation; controllers cancel what they preempt.
            handle._update_state(GoalEvent.CANCEL_GOAL)
        handle.canceled()
    return result


def serve(
    node: Any,
    kind: Any,
    name: str,
    execute: Callable[[Any], Any],
    cancel: Callable[[Any], CancelResponse],
    judge: Callable[[Any], GoalResponse] = default_goal_callback,
    accept: Callable[[Any], None] = default_handle_accepted_callback,
) -> ActionServer:
    """Offer an action whose callbacks may raise; what one raises is logged and reported.

    The goal is rejected then, aborted where it was accepted, or not cancelled. rclpy would raise
    out of the executor, and an EventsExecutor ends the process with SIGSEGV.
    """

    def accept_or_abort(handle: Any) -> None:
        try:
            accept(handle)
        except Exception:
            if not hasattr(handle, "ended"):  # it was not begun
                handle.ended = Future()
                handle.ended.set_result(("aborted", kind.Result()))
                handle.execute(run)
            raise

    judged, cancelled = guarded(node, name, judge), guarded(node, name, cancel)
    return ActionServer(
        node,
        kind,
        name,
        execute,
        goal_callback=lambda goal: judged(goal) or GoalResponse.REJECT,
        handle_accepted_callback=guarded(node, name, accept_or_abort),
        cancel_callback=lambda handle: cancelled(handle) or CancelResponse.REJECT,
        result_timeout=RESULT_TIMEOUT_S,
    )
