"""A policy server process that a test configures anew for each fault, and what it says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy_helpers import Client, NodeProcess, running_client
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from played_robot import until
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from grpo_ros.nodes.shared import qos

STATUS = "policy_server/status"
DEFAULTS: dict[str, Any] = {
    "robot": "",
    "command": "",
    "hardware": False,
    "lock_step": False,
    "use_sim_time": False,
    "interface_timeout_s": 3.0,
    "runner.max_age_s": 0.0,
    "runner.stop_after_s": 0.4,
    "runner.max_failures": 3,
    "runner.faults.enable_topic": "",
    "runner.execution.num_executed": 0,
}


class ServedPolicy:
    """A policy server in a process of its own.

    Args:
        client: that calls it. process: that runs it. policy: served unless another is named.
    """

    def __init__(self, client: Client, process: NodeProcess, policy: Path) -> None:
        self.client, self.process, self.policy = client, process, policy

    def change(self, transition: int) -> bool:
        """Ask for a lifecycle transition; return whether it came about."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.client.call(ChangeState, "policy_server/change_state", request).success)

    @property
    def state(self) -> str:
        """Lifecycle state."""
        return str(self.client.call(GetState, "policy_server/get_state").current_state.label)

    def configure(self, **changes: Any) -> bool:
        """Configure anew; `__` in a name stands for a dot. What is not named has its default."""
        if self.state == "active":
            assert self.change(Transition.TRANSITION_DEACTIVATE)
        if self.state == "inactive":
            assert self.change(Transition.TRANSITION_CLEANUP)
        given = {name.replace("__", "."): value for name, value in changes.items()}
        values = {**DEFAULTS, "policy": str(self.policy), **given}
        parameters = [Parameter(name, value=v).to_parameter_msg() for name, v in values.items()]
        request = SetParameters.Request(parameters=parameters)
        answer = self.client.call(SetParameters, "policy_server/set_parameters", request)
        assert all(result.successful for result in answer.results), answer.results
        self.client.forget()
        return self.change(Transition.TRANSITION_CONFIGURE)

    def activate(self, **changes: Any) -> None:
        """Configure anew and activate."""
        assert self.configure(**changes), self.said()
        assert self.change(Transition.TRANSITION_ACTIVATE)

    def start(self) -> Any:
        """Call ~/start."""
        return self.client.call(Trigger, "policy_server/start")

    def stop(self) -> dict[str, Any]:
        """Call ~/stop; return the summary of the run."""
        answer = self.client.call(Trigger, "policy_server/stop")
        assert answer.success
        return dict(json.loads(answer.message))

    def run(self, robot: Any, **changes: Any) -> None:
        """Configure, activate and start; return once the arm moves.

        A run that ended before, as a busy machine held the robot up for too long, is begun again.
        """
        self.activate(**changes)

        def moves() -> bool:
            if len(robot.commands()) > 8 and robot.speed > 0.1:
                return True
            if self.start().success:  # not while it runs, or as long as an input is missing
                self.client.forget()
            return False

        until(moves, "motion")

    def says(self, level: bytes, *words: str) -> Any:
        """Wait for a status of a level with words in it; return it."""
        return self.client.wait_for(
            STATUS, lambda m: m.level == level and all(word in m.message for word in words)
        )

    def said(self) -> str:
        """Return its last status."""
        heard = self.client.heard(STATUS)
        return str(heard[-1].message) if heard else ""

    def value(self, key: str, expected: str = "") -> str:
        """Wait for a diagnostic value, or for the one that is expected; return it."""

        def find(message: Any) -> list[str]:
            values = [pair.value for pair in message.status[0].values if pair.key == key]
            return [value for value in values if expected in ("", value)]

        return find(self.client.wait_for("/diagnostics", lambda m: bool(find(m))))[0]


@contextlib.contextmanager
def served(client: Client, folder: Path, policy: Path) -> Iterator[ServedPolicy]:
    """Run a policy server that waits to be configured."""
    process = NodeProcess("policy_server", folder / "server.log", policy=policy, autostart=False)
    try:
        server = ServedPolicy(client, process, policy)
        assert server.state == "unconfigured"
        yield server
    finally:
        code = process.stop()
    assert code == 0, process.output


@contextlib.contextmanager
def listening_client() -> Iterator[Client]:
    """Spin a client that keeps what the server says."""
    with running_client() as client:
        client.listen(DiagnosticStatus, STATUS, qos.LATCHED)
        client.listen(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        yield client
