"""BridgeProcess: starts the process that owns the simulator, and ends it.

The process inherits one end of a socket pair, so there is no address that anybody else could use
and no file to leave behind. It ends when that socket ends, and is killed by the kernel where its
parent dies while it is stuck. It has a session of its own: a Ctrl-C at the terminal is the
learner's affair.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from grpo_ros.errors import BridgeError, ConfigurationError
from grpo_ros.simulators.remote.shared_memory import SharedMemoryChannel

MODULE = "grpo_ros.serve"
EXIT_S = 5.0
"""How long a process may take to end by itself once nobody needs it."""
EXIT_CODE_S = 1.0
"""How long one whose connection broke may take until its exit code is known."""
POLL_S = 0.01


class BridgeProcess:
    """A `Connector` whose bridge is a child process.

    Args:
        settings: the run's whole configuration, YAML; what the bridge makes its simulator from.
        python: interpreter of the bridge's own environment; empty: this one.
        module: what it runs, as `python -m MODULE --config FILE --socket NUMBER`.
        say: told in one line that a bridge is starting and that it is ready.

    Attributes:
        process: the present child, if there is one.
        exit_code: of the last one that ended before it was ready; -9: it was killed.
    """

    def __init__(
        self,
        settings: str,
        python: str = "",
        module: str = MODULE,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings, self._python, self._module = settings, python or sys.executable, module
        self._say = say
        self.process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None

    def connect(self, timeout_s: float) -> SharedMemoryChannel:
        """Start a bridge in place of the one before, and return the connection to it.

        Raises:
            ConfigurationError: `python` cannot be run.
            BridgeError: the process was not ready in time, or ended before it was.
            GrpoRosError: the process says why it does not start.
        """
        self._kill()
        began = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.process = self._start(theirs)
        except OSError as problem:
            ours.close()
            raise ConfigurationError(
                f"'bridge.python' = '{self._python}': {problem.strerror}",
                expected="the interpreter of a Python environment",
            ) from None
        finally:
            theirs.close()
        self._say(f"starting the simulator in process {self.process.pid}")
        try:
            channel = SharedMemoryChannel(ours, timeout_s)
        except BridgeError as problem:
            code = self.exit_code = self._kill(EXIT_CODE_S)
            raise BridgeError(
                f"{problem.what}; it ended with exit code {code}",
                expected=problem.expected,
                remedy=problem.remedy or "see what it wrote",
            ) from problem
        except BaseException:  # what has only begun to start has nothing to put in order
            self._kill()
            raise
        self._say(f"the simulator's process is ready after {time.monotonic() - began:.1f} s")
        return channel

    def close(self) -> None:
        """Wait for the process to end by itself, or end it; idempotent."""
        child = self.process
        had_ended = child is not None and (child.returncode is not None or _has_ended(child.pid))
        code = self._kill(EXIT_S)
        if had_ended:
            self.exit_code = code

    def _start(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        settings = os.memfd_create("grpo_ros_settings", os.MFD_CLOEXEC)
        try:
            with open(settings, "wb", closefd=False) as file:
                file.write(self._settings.encode())
            command = [self._python, "-m", self._module, "--config", f"/dev/fd/{settings}"]
            return subprocess.Popen(
                [*command, "--socket", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # standard output belongs to the learner
                pass_fds=(settings, theirs.fileno()),
                start_new_session=True,
            )
        finally:
            os.close(settings)

    def _kill(self, grace_s: float = 0.0) -> int | None:
        """Make sure that the process and what it started are gone.

        Args:
            grace_s: how long it may take to end by itself.

        Returns:
            its exit code; None where there is no process, or the kernel does not let go of it.
        """
        if self.process is None:
            return None
        process, self.process = self.process, None
        if process.returncode is not None:
            return process.returncode
        until = time.monotonic() + grace_s
        while not _has_ended(process.pid) and time.monotonic() < until:
            time.sleep(POLL_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(EXIT_S)
        return None


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended; it is not reaped yet, so that nobody gets its number."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
