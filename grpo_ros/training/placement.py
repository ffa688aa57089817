"""Where a run's simulator lives, and what happens when that place is lost.

A piece of work (a rollout, an evaluation, a recording) begins with a reset or a restore and is
decided by its keys, so work whose bridge was lost is done again and gives the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from grpo_ros import configuration
from grpo_ros.errors import BridgeError, ConfigurationError
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.simulators.remote.bridge_process import BridgeProcess
from grpo_ros.simulators.remote.channel import Connector
from grpo_ros.simulators.remote.simulator import RemoteSimulator
from grpo_ros.tasks.base import Task
from grpo_ros.training.settings import TrainConfig

Say = Callable[[str], None]


def place_simulator(
    config: TrainConfig, task: Task, num_envs: int, connector: Connector | None, say: Say
) -> Simulator:
    """Return a run's simulator where `config.bridge` wants it.

    Args:
        config: the run's.
        task: what is simulated.
        num_envs: N.
        connector: finds the bridge; None: a process is started.
        say: told when a process starts and is ready.

    Raises:
        ConfigurationError: a running bridge is wanted, but nothing here can find one.
        BridgeError: no bridge is ready in time.
    """
    bridge = config.bridge
    if bridge.placement == "composed":
        settings = configuration.section(config, "simulator")
        return make_simulator(config.simulator, task, num_envs, settings)
    if connector is None:
        if bridge.attach or bridge.transport != "shared_memory":
            raise ConfigurationError(
                f"'bridge.attach' = '{bridge.attach}', 'bridge.transport' = '{bridge.transport}'",
                expected="the node `learner`, since a running bridge is found over ROS",
                remedy="ros2 run grpo_ros learner ..., or leave both settings out",
            )
        return _started(config, task, num_envs, say)
    wanted = configuration.simulated_settings(config)
    return RemoteSimulator(
        task, num_envs, connector, bridge.timeout_s, bridge.start_timeout_s, wanted
    )


def _started(config: TrainConfig, task: Task, num_envs: int, say: Say) -> RemoteSimulator:
    """Return the simulator in a process that is started, again where it is killed on the way."""
    bridge, settings = config.bridge, configuration.to_yaml(config)
    num_starts = 0
    while True:
        num_starts += 1
        process = BridgeProcess(settings, bridge.python, say=say)
        try:
            return RemoteSimulator(
                task, num_envs, process, bridge.timeout_s, bridge.start_timeout_s
            )
        except BridgeError as problem:
            was_killed = process.exit_code is not None and process.exit_code < 0
            if not was_killed or num_starts > bridge.max_restarts:
                raise
            say(f"bridge lost: {problem.what}; starting it again")


def without_ros(config: TrainConfig) -> TrainConfig:
    """Return a configuration whose bridge is started, where it was found over ROS."""
    bridge = dataclasses.replace(config.bridge, attach="", transport="shared_memory")
    return dataclasses.replace(config, bridge=bridge)


class Losses:
    """Does work again whose bridge was lost, and counts what was dropped.

    Args:
        simulator: in whichever place.
        max_restarts: how many losses in a row are borne.
        say: told about each.

    Attributes:
        bridges: bridges lost so far.
        groups: groups of rollouts that were dropped, and drawn again.
    """

    def __init__(self, simulator: Simulator, max_restarts: int, say: Say) -> None:
        self._simulator, self._max_restarts, self._say = simulator, max_restarts, say
        self.bridges = self.groups = 0

    def redo[T](self, work: Callable[[], T], num_groups: int = 0) -> T:
        """Return what the work gives, done as often as it takes.

        Args:
            work: begins with a reset or restore of all that it uses.
            num_groups: how many groups are dropped if it fails once it has begun.

        Raises:
            BridgeError: the bridge was lost more than `max_restarts` times in a row.
        """
        in_a_row = 0
        while True:
            num_begun = 0
            try:
                if in_a_row and isinstance(self._simulator, RemoteSimulator):
                    self._simulator.reconnect()
                num_begun = num_groups
                return work()
            except BridgeError as problem:
                in_a_row += 1
                self.bridges += 1
                self.groups += num_begun
                if in_a_row > self._max_restarts:
                    raise BridgeError(
                        f"the simulator's bridge was lost {in_a_row} times in a row: "
                        f"{problem.what}",
                        expected=f"at most bridge.max_restarts = {self._max_restarts}",
                        remedy=problem.remedy or "see what the bridge wrote",
                    ) from problem
                dropped = f"; {num_begun} groups dropped, to be drawn again" * bool(num_begun)
                self._say(f"bridge lost: {problem.what}{dropped}")
