"""A policy server that is killed in mid-motion, and what the simulated arm does then."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bridge_in_process import Bridge, bridge_in_process
from commanded_motion import Limits
from control_msgs.msg import JointTrajectoryControllerState
from deploy_helpers import NodeProcess, environment
from diagnostic_msgs.msg import DiagnosticStatus
from played_robot import until
from std_srvs.srv import Trigger

from grpo_ros.nodes.shared import qos
from grpo_ros.nodes.simulator_bridge import SimulatorBridge

STATUS = "policy_server/status"
SHORT_LEASE = """<?xml version="1.0" encoding="UTF-8" ?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <participant profile_name="short_lease" is_default_profile="true"><rtps><builtin>
    <discovery_config>
      <leaseDuration><sec>2</sec></leaseDuration>
      <leaseAnnouncement><sec>0</sec><nanosec>500000000</nanosec></leaseAnnouncement>
    </discovery_config>
  </builtin></rtps></participant>
</profiles>
"""
"""A killed process stays in the graph until its lease ends, 20 s by default: so long a restarted
server refuses to start, since somebody of its name seems to publish commands too."""


@dataclasses.dataclass(frozen=True)
class Killed:
    """What the arm did after the server was killed.

    Attributes:
        speed: of the fastest joint when it was killed, rad/s.
        rest_s: until it stood. way: how far a joint moved until then, rad.
        position, velocity, acceleration: largest share of a limit that was used; 1 is the limit.
        crept: how far a joint moved while a restarted server was up, rad.
    """

    speed: float
    rest_s: float
    way: float
    position: float
    velocity: float
    acceleration: float
    crept: float


class Trials:
    """Kills one server after another.

    Args:
        bridge: free running. folder: for logs. policy: that never rests.
    """

    def __init__(self, bridge: Bridge, folder: Path, policy: Path) -> None:
        self.bridge, self.folder, self.policy = bridge, folder, policy
        robot = bridge.bridge.sim.robot
        self.limits = Limits.of(robot.limits[: len(robot.arm_joints)])
        self.topic = robot.interfaces.arm_controller_state
        bridge.listen(JointTrajectoryControllerState, self.topic, qos.SENSOR)
        bridge.listen(DiagnosticStatus, STATUS, qos.LATCHED)
        self.number = 0
        self.server = self._start_server()

    def kill(self, after_s: float) -> Killed:
        """Kill the server so long after the arm began to move; start another."""
        assert self.ask("start")
        until(lambda: self._speed() > 0.1, "motion")
        time.sleep(after_s)
        until(lambda: self._speed() > 0.1, "motion")
        self.bridge.forget()
        self.server.process.kill()
        self.server.process.wait()
        states = self._until_rest()
        speeds = np.abs([state.reference.velocities for state in states])
        positions = np.array([state.reference.positions for state in states])
        accelerations = np.abs([state.reference.accelerations for state in states])
        limits = self.limits
        middle, half = (limits.upper + limits.lower) / 2.0, (limits.upper - limits.lower) / 2.0
        stamps = [state.header.stamp.sec + 1e-9 * state.header.stamp.nanosec for state in states]
        moving = speeds.max(axis=1) > 0.0
        return Killed(
            speed=float(speeds[0].max()),
            rest_s=stamps[int(np.argmin(moving))] - stamps[0],
            way=float(np.abs(positions[-1] - positions[0]).max()),
            position=float((np.abs(positions - middle) / half).max()),
            velocity=float((speeds / limits.velocity).max()),
            acceleration=float((accelerations / limits.acceleration).max()),
            crept=self._restart(positions[-1]),
        )

    def _until_rest(self) -> list[Any]:
        """Return the controller's states from the kill until the arm has stood for a while."""

        def stands() -> bool:
            heard = self.bridge.heard(self.topic)
            return len(heard) > 20 and not any(
                any(state.reference.velocities) for state in heard[-20:]
            )

        until(stands, "rest")
        return self.bridge.heard(self.topic)

    def _restart(self, rest: np.ndarray) -> float:
        self.server = self._start_server()
        time.sleep(0.5)
        heard = self.bridge.heard(self.topic)
        outputs = np.array([state.output.positions for state in heard[-50:]])
        return float(np.abs(outputs - rest).max())

    def _start_server(self) -> NodeProcess:
        self.bridge.forget()
        self.number += 1
        log = self.folder / f"server_{self.number}.log"
        server = NodeProcess("policy_server", log, policy=self.policy, use_sim_time=True)
        with self.stopping(server):
            self.bridge.wait_for(STATUS, lambda message: message.message == "holding")
        return server

    @staticmethod
    @contextlib.contextmanager
    def stopping(server: NodeProcess) -> Iterator[None]:
        """End a server that does not come up."""
        try:
            yield
        except BaseException:
            server.stop()
            raise

    def ask(self, name: str) -> bool:
        """Call ~/start or ~/stop until it is accepted: the one that was killed may linger."""
        client = self.bridge.node.create_client(Trigger, f"policy_server/{name}")
        try:
            return bool(until(lambda: self._asked(client), f"~/{name}", timeout_s=30.0))
        finally:
            self.bridge.node.destroy_client(client)

    @staticmethod
    def _asked(client: Any) -> bool:
        """Return whether a call was accepted; False where nobody answered in time."""
        future = client.call_async(Trigger.Request())
        deadline = time.monotonic() + 2.0
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.01)
        if future.done() and future.result().success:
            return True
        time.sleep(0.2)
        return False

    def _speed(self) -> float:
        heard = self.bridge.heard(self.topic)
        return float(np.abs(heard[-1].reference.velocities).max()) if heard else 0.0


@contextlib.contextmanager
def killing(folder: Path, policy: Path) -> Iterator[Trials]:
    """Run a free-running simulated robot and a server; stop what is left of both."""
    profile = folder / "short_lease.xml"
    profile.write_text(SHORT_LEASE)
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    with (
        environment(dict.fromkeys(names, str(profile))),
        bridge_in_process(SimulatorBridge, task="pick_place") as bridge,
    ):
        trials = Trials(bridge, folder, policy)
        try:
            yield trials
        finally:
            trials.server.stop()
