"""Bridge: owns the simulator of a run that another process learns from.

It is started by the learner (`placement:=separate`), which hands over one end of a socket; it ends
when the other end is closed or its parent dies, and on SIGINT and SIGTERM. Exit codes: 0 the
learner is done; 2 a mistake in the settings, which the learner is told.

    python -m grpo_ros.serve --config FILE --socket NUMBER
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from grpo_ros.interrupts import Interrupts

if TYPE_CHECKING:
    from grpo_ros.simulators.remote.serving import ServedSimulator
    from grpo_ros.training.settings import TrainConfig

MISTAKE = 2
PR_SET_PDEATHSIG = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Serve one learner; return the exit code."""
    options = _options(argv)
    connection = socket.socket(fileno=options.socket)
    Interrupts()
    die_with_parent()
    logging.basicConfig(format="simulator: %(message)s")

    def make() -> ServedSimulator:
        from grpo_ros.configuration import load_config

        return served_simulator(load_config([], options.config))

    return serve_learner(connection, make)


def served_simulator(config: TrainConfig) -> ServedSimulator:
    """Return the simulator of a run's configuration, to be made when a learner opens it."""
    from grpo_ros import configuration
    from grpo_ros.simulators.registry import make_simulator
    from grpo_ros.simulators.remote.serving import ServedSimulator
    from grpo_ros.tasks.environment import EnvironmentTask
    from grpo_ros.tasks.registry import make_task

    task = make_task(config.task, configuration.section(config, "task"))
    settings = configuration.section(config, "simulator")
    return ServedSimulator(
        lambda num_envs: make_simulator(config.simulator, task, num_envs, settings),
        None if isinstance(task, EnvironmentTask) else task.contract(),
        configuration.simulated_settings(config),
    )


def serve_learner(connection: socket.socket, make: Callable[[], ServedSimulator]) -> int:
    """Answer the learner at the other end until it is gone; return the exit code."""
    import torch

    from grpo_ros.errors import BridgeError, GrpoRosError
    from grpo_ros.simulators.remote.messages import error_fields
    from grpo_ros.simulators.remote.serving import serve
    from grpo_ros.simulators.remote.shared_memory import ServedSharedMemory, refuse

    torch.set_num_threads(1)  # as in the learner: more than free cores slow small kernels down
    try:
        served = make()
    except GrpoRosError as problem:
        refuse(connection, error_fields(problem))
        return MISTAKE
    try:
        serve(ServedSharedMemory(connection, secrets.randbits(64)), served, lambda: False)
    except BridgeError:  # the learner left while we started
        pass
    finally:
        connection.close()
        served.close()
    return 0


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, even in the middle of a step."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grpo_ros.serve", description="Serve a simulator.")
    parser.add_argument("--config", metavar="FILE", required=True, help="YAML file of settings")
    parser.add_argument("--socket", metavar="NUMBER", type=int, required=True, help="inherited")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
