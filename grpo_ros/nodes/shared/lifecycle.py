"""Base of nodes that command a robot: transitions in order, and nothing remote kills the node.

- An illegal transition request is answered False (rclpy would raise out of the executor).
- An exception in a callback is logged and reported to `on_failure`; the node lives on.
- A refused configuration leaves the node unconfigured, with the reason in the log and in
  `failure`.
- On the way down, whatever the way: stop producing, wait for what runs, send the safe command.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from grpo_ros.errors import GrpoRosError

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class GuardedLifecycleNode(LifecycleNode):
    """A lifecycle node whose subclasses fill in configure, activate, stop and cleanup.

    Attributes:
        failure: why the last transition failed, or the last callback; empty if none did.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        self.failure = ""
        super().__init__(name, **kwargs)

    # ---------------------------------------------------------------- for subclasses

    def configure(self) -> None:
        """Read parameters and check everything; raise what is wrong."""

    def activate(self) -> None:
        """Begin to observe; nothing moves yet."""

    def stop(self) -> None:
        """Stop producing, wait for what runs, send the safe command. Called before going down."""

    def cleanup(self) -> None:
        """Free what configure made."""

    def on_failure(self, where: str, reason: str) -> None:
        """React to an exception in a callback, e.g. by stopping."""

    # ---------------------------------------------------------------- transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Configure; on failure free what was made and stay unconfigured."""
        result = self._attempt("configure", self.configure)
        if result != SUCCESS:
            self._attempt("cleanup", self.cleanup, keep_failure=True)
            return result
        return self._and_super(result, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Activate; on failure stay inactive."""
        result = self._attempt("activate", self.activate)
        return self._and_super(result, super().on_activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, wait, safe command; then inactive, whatever failed: nothing produces any more."""
        self._attempt("stop", self.stop)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free what configure made."""
        return self._and_super(self._attempt("cleanup", self.cleanup), super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop, then free."""
        self._attempt("stop", self.stop)
        self._attempt("cleanup", self.cleanup, keep_failure=True)
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free; the node becomes unconfigured."""
        self._attempt("stop", self.stop, keep_failure=True)
        self._attempt("cleanup", self.cleanup, keep_failure=True)
        return super().on_error(state)

    @property
    def state_label(self) -> str:
        """unconfigured, inactive, active, finalized or a transition between them."""
        return str(self._state_machine.current_state[1])

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:
        # The private name of rclpy's service handler; a test proves that it is still the one.
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RCLError as problem:
            self.get_logger().warning(
                f"refused transition {request.transition.id} '{request.transition.label}' in "
                f"state '{self.state_label}': {problem}"
            )
            response.success = False
            return response

    def _attempt(
        self, where: str, action: Callable[[], None], keep_failure: bool = False
    ) -> TransitionCallbackReturn:
        try:
            action()
        except GrpoRosError as problem:
            reason = f"{where}: {problem}"
            self.get_logger().error(reason)
        except Exception as problem:  # noqa: BLE001 - the transition has to be answered
            reason = f"{where}: {type(problem).__name__}: {problem}"
            self.get_logger().error(f"{reason}\n{traceback.format_exc()}")
        else:
            if not keep_failure:
                self.failure = ""
            return SUCCESS
        if not keep_failure:
            self.failure = reason
        return FAILURE

    @staticmethod
    def _and_super(
        result: TransitionCallbackReturn,
        parent: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        return parent(state) if result == SUCCESS else result

    def destroy_node(self) -> None:
        """Destroy the node with its state machine, which keeps it known to others."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    # ---------------------------------------------------------------- guarded callbacks

    def create_subscription(
        self, msg_type: Any, topic: str, callback: Callable[..., None], *args: Any, **kwargs: Any
    ) -> Any:
        """Subscribe; an exception in the callback is reported, not raised."""
        return super().create_subscription(
            msg_type, topic, guarded(self, topic, callback), *args, **kwargs
        )

    def create_timer(
        self, period_s: float, callback: Callable[..., None], *args: Any, **kwargs: Any
    ) -> Any:
        """Create a timer; an exception in the callback is reported, not raised."""
        name = f"timer {getattr(callback, '__name__', '')}"
        return super().create_timer(period_s, guarded(self, name, callback), *args, **kwargs)

    def create_service(
        self, srv_type: Any, name: str, callback: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Offer a service; an exception in the callback is answered success = False."""
        return super().create_service(
            srv_type, name, guarded(self, name, callback), *args, **kwargs
        )


def guarded(node: Any, where: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return the callback with every exception logged and handed to `node.on_failure`.

    A service's response (second argument) is returned with `success` False and the reason.
    """

    @functools.wraps(callback)
    def call(*args: Any) -> Any:
        try:
            return callback(*args)
        except Exception as problem:  # noqa: BLE001 - nothing a peer sends may kill the node
            reason = f"{type(problem).__name__}: {problem}"
            node.get_logger().error(
                f"{where}: {reason}\n{traceback.format_exc()}", throttle_duration_sec=1.0
            )
            node.failure = f"{where}: {reason}"
            _react(node, where, reason)
            response: Any = args[1] if len(args) > 1 else None
            if response is not None and hasattr(response, "success"):
                response.success = False
            if response is not None and hasattr(response, "message"):
                response.message = reason
            return response

    return call


def _react(node: Any, where: str, reason: str) -> None:
    try:
        node.on_failure(where, reason)
    except Exception as problem:  # noqa: BLE001 - the reaction to a failure must not kill either
        node.get_logger().error(f"{where}: reacting to '{reason}' failed: {problem}")
