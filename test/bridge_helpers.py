"""Bridges for tests: forked from a process that has imported everything, so they start at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import torch

from grpo_ros import serve
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.simulators.remote.serving import ServedSimulator
from grpo_ros.simulators.remote.shared_memory import SharedMemoryChannel

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "grpo_ros.configuration",
        "grpo_ros.simulators.remote.serving",
        "grpo_ros.simulators.remote.shared_memory",
    ]
)
DEADLINE_S = 40.0
ONE_THREAD = MujocoConfig(num_threads=1)
KILL, STOP, RAISE = 2.0, 3.0, 4.0
"""First action of a chunk -> what a `Faulty` simulator does instead of the step."""


class Faulty(MujocoSimulator):
    """Does to its own process, in mid-call, what a chunk or a file asks for."""

    poison = None
    """Where this file is, the step that finds it removes it and dies."""

    def step(self, chunk):
        fault = float(chunk[0, 0, 0])
        if self.poison is not None and self.poison.exists():
            if self.poison.read_text() != "always":
                self.poison.unlink()
            fault = KILL
        if fault == RAISE:
            raise ValueError("a fault of the engine")
        if fault in (KILL, STOP):
            os.kill(os.getpid(), signal.SIGKILL if fault == KILL else signal.SIGSTOP)
        return super().step(chunk)

    def render(self, env_ids=None, camera="overview"):
        """Return images that tell what was asked for; nothing is rendered."""
        ids = range(self.num_envs) if env_ids is None else env_ids
        return torch.stack(
            [torch.full((8, 6, 3), i + len(camera), dtype=torch.uint8) for i in ids]
        )


def _serve(connection, task, config, poison):
    Faulty.poison = poison

    def make():
        return ServedSimulator(lambda num: Faulty(task, num, config), task.contract())

    serve.serve_learner(connection, make)


class ForkedBridge:
    """A connector that forks a bridge for a task.

    Args:
        task: what it simulates.
        poison: path of a file that makes a step die.
    """

    def __init__(self, task, poison: Path | None = None, config=ONE_THREAD):
        self._task, self._poison, self._config = task, poison, config
        self.process = None
        self.pids = []

    def connect(self, timeout_s):
        """Fork a bridge in place of the one before."""
        self._end(kill=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            args = (theirs, self._task, self._config, self._poison)
            self.process = FORKS.Process(target=_serve, args=args, daemon=True)
            self.process.start()
        self.pids.append(self.process.pid)
        return SharedMemoryChannel(ours, timeout_s)

    def close(self):
        """End the bridge, which has to end by itself."""
        self._end(kill=False)

    def _end(self, kill):
        if self.process is None:
            return
        process, self.process = self.process, None
        if kill:
            process.kill()  # unlike os.kill, no error for one that the fork server has just reaped
        process.join(DEADLINE_S)
        assert not process.is_alive(), "the bridge outlived its learner"


def shared_memory():
    """Return the names in /dev/shm, but for those of ROS nodes that run on this machine too."""
    return {name for name in os.listdir("/dev/shm") if "fastrtps" not in name}


def is_running(pid):
    """Return whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition, what):
    """Wait for a condition, within the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
