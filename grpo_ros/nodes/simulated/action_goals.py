"""Action goals whose end is decided elsewhere than in their execute callback."""

from __future__ import annotations

from typing import Any, Literal

from rclpy._rclpy_pybind11 import GoalEvent
from rclpy.task import Future

GoalStatus = Literal["succeeded", "aborted", "canceled"]
RESULT_TIMEOUT_S = 2
"""How long a result waits for its client."""


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
