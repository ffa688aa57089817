"""A process with one node: an executor beside the main thread, and a way down that is ours.

rclpy's own signal handlers invalidate the context at once, so that no last command could be
sent. Here SIGINT and SIGTERM wake the main thread, which lets the node stop before anything is
torn down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import rclpy
import rclpy.logging
from rclpy.action import ActionClient, ActionServer
from rclpy.experimental import EventsExecutor
from rclpy.signals import SignalHandlerOptions

from grpo_ros.errors import GrpoRosError

STOP_TIMEOUT_S = 5.0


def leave(exit_code: int) -> NoReturn:
    """End this process now; what had to be torn down in order has been.

    What the interpreter would still do is destroy what the middleware left behind, and that was
    seen to wait for ever: a bridge hung for 30 s, deaf to SIGTERM's handler, after all was closed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def destroy(node: Any) -> None:
    """Destroy a node with its actions.

    `Node.destroy_node` leaves action servers and clients alone, and these keep the node known to
    others: a ghost of a server makes the same action of the next process look unavailable.
    """
    for waitable in list(node.waitables):
        if isinstance(waitable, ActionServer | ActionClient):
            waitable.destroy()
    node.destroy_node()


class Process:
    """A node spun by an EventsExecutor in a thread of its own.

    An executor that is lost, because something was raised out of it, ends the process with code 1;
    what is still to be called then runs in the caller's thread.

    Attributes:
        node: the node.
        stopping: set once SIGINT or SIGTERM came, or `request_stop` was called.
        is_lost: whether nothing spins any more.
    """

    def __init__(self, node: Any, executor: Any, stopping: threading.Event) -> None:
        self.node, self.executor, self.stopping = node, executor, stopping
        self.exit_code, self.is_lost = 0, False
        self.thread = threading.Thread(target=self._spin, name="executor", daemon=True)

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except Exception as problem:  # noqa: BLE001 - the node still has to go down in order
            self.node.get_logger().fatal(
                f"the executor is lost: {type(problem).__name__}: {problem}\n"
                f"{traceback.format_exc()}"
            )
        self.is_lost = True
        if not self.stopping.is_set():
            self.request_stop(1)

    def request_stop(self, exit_code: int = 0) -> None:
        """Let `wait` return; callable from any thread or callback."""
        self.exit_code = self.exit_code or exit_code
        self.stopping.set()

    def wait(self) -> int:
        """Wait for a signal or `request_stop`; return the exit code."""
        self.stopping.wait()
        return self.exit_code

    def call(self, action: Callable[[], Any], timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Run an action in the executor's thread; return whether it succeeded in time.

        What it raises is logged: raised out of a task, it would end the process at once.
        """
        ended, succeeded = threading.Event(), threading.Event()

        def run() -> None:
            try:
                action()
                succeeded.set()
            except Exception as problem:  # noqa: BLE001 - the executor has to live on
                self.node.get_logger().error(
                    f"{type(problem).__name__}: {problem}\n{traceback.format_exc()}"
                )
            finally:
                ended.set()

        if self.is_lost:
            run()
        else:
            self.executor.create_task(run)
            self.executor.wake()
        return ended.wait(timeout_s) and succeeded.is_set()


@contextlib.contextmanager
def spinning(
    make_node: Callable[[], Any],
    on_stop: Callable[[Any], None] | None = None,
    args: Sequence[str] | None = None,
) -> Iterator[Process]:
    """Make a node and spin it; on leaving, stop it in order.

    Args:
        make_node: called once the context exists.
        on_stop: called with the node in the executor's thread before it goes.
        args: command line, with ROS arguments.

    Raises:
        SystemExit: the node refused its parameters; why is in the log.
    """
    stopping = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stopping.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = _made(make_node)
    executor = EventsExecutor()
    executor.add_node(node)
    process = Process(node, executor, stopping)
    process.thread.start()
    try:
        yield process
    finally:
        for number in previous:  # launch may send SIGINT twice
            signal.signal(number, signal.SIG_IGN)
        try:
            if on_stop is not None and not process.call(lambda: on_stop(node)):
                node.get_logger().error(
                    f"the node failed to stop, or did not within {STOP_TIMEOUT_S} s"
                )
        finally:
            executor.shutdown()
            process.thread.join(STOP_TIMEOUT_S)
            destroy(node)
            rclpy.try_shutdown()
            for number, handler in previous.items():
                signal.signal(number, handler)


def _made(make_node: Callable[[], Any]) -> Any:
    try:
        return make_node()
    except GrpoRosError as problem:
        rclpy.logging.get_logger("grpo_ros").error(str(problem))
        rclpy.try_shutdown()
        raise SystemExit(1) from problem
