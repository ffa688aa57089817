"""Evaluator: runs a policy's trials over ROS and writes down what was verified.

Per episode: reset the simulated robot to the next held-out initial state, start the policy, wait
for the end, stop the policy, ask for the outcome, mark it.

Calls:
    <bridge>/reset, <bridge>/outcome, <server>/start, <server>/stop (std_srvs/Trigger),
    <server>/mark_outcome (std_srvs/SetBool), <server>/get_state (lifecycle_msgs/GetState).
Subscribes:
    <bridge>/status, <server>/status (diagnostic_msgs/DiagnosticStatus).
    <arm controller>/joint_trajectory (trajectory_msgs/JointTrajectory), free running: what the
    server sends there is held to the limits.
Parameters: `EvaluatorConfig`.
Writes: deployments/<date>.json beside the policy file, before and after the comparison.
Exit code 0: every episode ran to its end, and what was commanded kept the limits.

    ros2 run grpo_ros evaluator --ros-args -p policy:=FILE.onnx -p episodes:=200
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from rclpy.utilities import get_rmw_implementation_identifier
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from grpo_ros import typed
from grpo_ros.deployment.matching import trained_robot
from grpo_ros.deployment.records.command_audit import CommandAudit
from grpo_ros.deployment.records.trials import (
    Trial,
    TrialError,
    compared,
    summary,
    write_json,
    write_report,
)
from grpo_ros.deployment.simulation.simulated_task import in_process_outcomes
from grpo_ros.errors import ConfigurationError, GrpoRosError
from grpo_ros.export.graph_file import MAX_BYTES, read_graph
from grpo_ros.export.policy_file import PolicyFile, load_policy_file
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.nodes.shared.lifecycle import guarded
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.process import Process, leave, spinning
from grpo_ros.robots.robot import Robot
from grpo_ros.training.evaluation import HELD_OUT_SEED, held_out_keys
from grpo_ros.training.statistics import wilson_interval
from grpo_ros.versions import versions

CALL_TIMEOUT_S, ASK_TIMEOUT_S = 10.0, 2.0
SETTLE_S = 0.4
"""Free running: simulated time in which an arm comes to rest after an episode."""
MAX_ERRORS = 3
"""Episodes in a row that may fail to run before the series is given up."""
PROGRESS_S = 5.0


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """Parameters of the evaluator."""

    policy: str = typed.setting("", "ONNX file that the policy server runs")
    episodes: int = typed.setting(20, "How many episodes", minimum=1)
    first_episode: int = typed.setting(0, "Number of the first initial state", minimum=0)
    seed: int = typed.setting(HELD_OUT_SEED, "Seed of the initial states", minimum=0)
    simulator: str = typed.setting("", "Engine of bridge and comparison; empty: the run's")
    lock_step: bool = typed.setting(False, "How bridge and server run; written down")
    real_time_factor: float = typed.setting(1.0, "How the bridge runs; written down")
    compare_in_process: bool = typed.setting(
        True, "Also run the same episodes without ROS, after the trials, and compare"
    )
    bridge: str = typed.setting("simulator_bridge", "Node that simulates the robot")
    server: str = typed.setting("policy_server", "Node that runs the policy")
    startup_timeout_s: float = typed.setting(
        90.0, "Longest wait for both nodes", unit="s", minimum=1.0
    )
    episode_timeout_s: float = typed.setting(
        120.0,
        "Longest wait for an episode's end; longer where real_time_factor is below 1",
        unit="s",
        minimum=1.0,
    )


class Evaluator(Node):
    """The services and topics that trials need; its methods block and run in the main thread."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("evaluator", **kwargs)
        self.config = config = read_parameters(self, EvaluatorConfig())
        bridge, server = config.bridge, config.server
        self._reset = self.create_client(Trigger, f"{bridge}/reset")
        self._outcome = self.create_client(Trigger, f"{bridge}/outcome")
        self._start = self.create_client(Trigger, f"{server}/start")
        self._stop = self.create_client(Trigger, f"{server}/stop")
        self._mark = self.create_client(SetBool, f"{server}/mark_outcome")
        self._get_state = self.create_client(GetState, f"{server}/get_state")
        self._changed = threading.Condition()
        self._bridge_status: tuple[str, int] = ("", -1)
        self._server_status: tuple[bytes, str] = (DiagnosticStatus.OK, "")
        self.create_subscription(
            DiagnosticStatus, f"{bridge}/status", self._on_bridge, qos.LATCHED
        )
        self.create_subscription(
            DiagnosticStatus, f"{server}/status", self._on_server, qos.LATCHED
        )
        self.process: Process | None = None
        self._audit: CommandAudit | None = None
        self._arm_topic, self._arm_joints = "", tuple[str, ...]()

    # ---------------------------------------------------------------- commands

    def listen_to_commands(self, robot: Robot) -> None:
        """Follow the arm's trajectories, to hold them to its limits."""
        self._arm_topic, self._arm_joints = robot.interfaces.arm_trajectory_topic, robot.arm_joints
        if self.config.lock_step or not self._arm_topic:
            return
        self._audit = CommandAudit(robot.limits[: len(robot.arm_joints)])
        heard = guarded(self, self._arm_topic, self._on_command)
        self.create_subscription(JointTrajectory, self._arm_topic, heard, qos.COMMANDS_HEARD)

    def audited(self) -> CommandAudit | None:
        """Return the audit of the arm's trajectories; None where the server sends none.

        A server whose commands go by an action or a stream does not publish trajectories.
        """
        audit = self._audit
        if audit is None:
            return None
        audit.finish()
        is_heard = audit.num_motions + audit.num_unreadable > 0
        return audit if is_heard or self.count_publishers(self._arm_topic) else None

    def on_failure(self, *_: str) -> None:
        """Count a command that cannot be read; why is in the log."""
        assert self._audit is not None
        self._audit.num_unreadable += 1

    def _on_command(self, message: JointTrajectory) -> None:
        assert self._audit is not None
        if tuple(message.joint_names) != self._arm_joints:
            raise ValueError(f"joints {message.joint_names}, not {self._arm_joints}")
        self._audit.note(messages.to_ns(message.header.stamp), messages.curve_of(message))

    # ---------------------------------------------------------------- trials

    def wait_until_ready(self) -> None:
        """Wait for the bridge and for the active policy server.

        Raises:
            TrialError: one of them does not come up in time; says what the server's status is.
        """
        deadline = time.monotonic() + self.config.startup_timeout_s
        for client in (self._reset, self._outcome, self._start, self._stop, self._get_state):
            while not client.wait_for_service(timeout_sec=0.2):
                self._check_going(deadline, f"service {client.srv_name}")
        while True:
            label = self._ask(self._get_state, GetState.Request(), deadline).current_state.label
            if label == "active":
                break
            level, message = self._server_status
            if label == "unconfigured" and level == DiagnosticStatus.ERROR:
                raise TrialError(
                    f"the policy server is unconfigured: {message}",
                    expected="an active policy server",
                )
            self._check_going(deadline, f"an active policy server (it is {label})")
            time.sleep(0.05)
        for client in (self._outcome, self._stop):  # harmless, and proves that answers arrive
            self._ask(client, Trigger.Request(), deadline)

    def run_trial(self, episode: int, key: tuple[int, ...]) -> Trial:
        """Run one episode and return what was verified; an error is in the trial."""
        try:
            if not self.config.lock_step:  # the server waits until what it sent has ended
                time.sleep(SETTLE_S / self.config.real_time_factor)
            if self._audit is not None:
                self._audit.begin()
            begun = json.loads(self._trigger(self._reset))
            if begun["episode"] != episode:
                raise TrialError(
                    f"the bridge began episode {begun['episode']}", expected=f"episode {episode}"
                )
            self._trigger(self._start)
            self._wait_for_end(episode)
            stopped = json.loads(self._trigger(self._stop))
            outcome = self._call(self._outcome, Trigger.Request())
            found = json.loads(outcome.message)
            self._call(self._mark, SetBool.Request(data=outcome.success))
        except TrialError as problem:
            self._stop.call_async(Trigger.Request())
            return Trial(episode, key, False, 0.0, 0, False, str(problem))
        error = found.get("error", "")
        if not error and tuple(found["key"]) != key:
            error = f"the bridge used key {found['key']}, expected {list(key)}"
        if not error and self.config.lock_step and stopped["periods"] != found["steps"]:
            error = f"{found['steps']} steps but {stopped['periods']} commands in lock step"
        return Trial(
            episode,
            key,
            bool(outcome.success),
            float(found.get("score", 0.0)),
            int(found.get("steps", 0)),
            bool(found.get("terminated", False)),
            error,
            stopped["periods"],
            stopped["interventions"],
            stopped["held"],
        )

    def _wait_for_end(self, episode: int) -> None:
        timeout_s = self.config.episode_timeout_s
        if not self.config.lock_step:
            timeout_s /= min(1.0, self.config.real_time_factor)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._bridge_status not in (("finished", episode), ("failed", episode)):
                what = f"the end of episode {episode} ({timeout_s:g} s, episode_timeout_s)"
                self._check_going(deadline, what)
                self._changed.wait(0.2)

    # ---------------------------------------------------------------- waiting

    def _trigger(self, client: Any) -> str:
        response = self._call(client, Trigger.Request())
        if not response.success:
            raise TrialError(f"{client.srv_name} refused: {response.message}")
        return str(response.message)

    def _ask(self, client: Any, request: Any, deadline: float) -> Any:
        """Call again and again: an answer is lost where discovery is not complete yet."""
        while True:
            try:
                return self._call(client, request, ASK_TIMEOUT_S)
            except TrialError:
                self._check_going(deadline, f"an answer of {client.srv_name}")

    def _call(self, client: Any, request: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        if not done.wait(timeout_s):
            client.remove_pending_request(future)
            raise TrialError(
                f"{client.srv_name} did not answer", expected=f"within {timeout_s:g} s"
            )
        return future.result()

    def _check_going(self, deadline: float, what: str) -> None:
        if self.process is not None and self.process.stopping.is_set():
            raise TrialError(f"stopped while waiting for {what}")
        if time.monotonic() > deadline:
            _, message = self._server_status
            raise TrialError(f"waited too long for {what}; policy server: {message or 'silent'}")

    def _on_bridge(self, message: DiagnosticStatus) -> None:
        values = {pair.key: pair.value for pair in message.values}
        with self._changed:
            self._bridge_status = message.message, int(values.get("episode", -1))
            self._changed.notify_all()

    def _on_server(self, message: DiagnosticStatus) -> None:
        with self._changed:
            self._server_status = message.level, message.message
            self._changed.notify_all()


def run_trials(node: Evaluator, say: Callable[[str], None]) -> list[Trial]:
    """Run all episodes; give up after several in a row that could not be run."""
    config, trials, num_errors, said_s = node.config, [], 0, time.monotonic()
    for key in held_out_keys(config.episodes, config.seed, config.first_episode):
        trial = node.run_trial(key.group, tuple(key))
        trials.append(trial)
        num_errors = num_errors + 1 if trial.error else 0
        if trial.error:
            say(f"episode {trial.episode} does not count: {trial.error}")
        if num_errors >= MAX_ERRORS or (node.process and node.process.stopping.is_set()):
            say(f"given up after {len(trials)} of {config.episodes} episodes")
            break
        if time.monotonic() - said_s > PROGRESS_S:
            said_s = time.monotonic()
            say(f"{len(trials)}/{config.episodes} episodes, success {_rate(trials)}")
    return trials


def report(
    node: Evaluator, policy: PolicyFile, policy_hash: str, trials: list[Trial], seconds: float
) -> dict[str, Any]:
    """Return the result of the trials as JSON."""
    config, contract = node.config, policy.contract
    result: dict[str, Any] = {
        **summary(trials, config.episodes),
        "simulator": config.simulator,
        "seed": config.seed,
        "first_episode": config.first_episode,
        "mode": "lock_step" if config.lock_step else "free_running",
        "real_time_factor": None if config.lock_step else config.real_time_factor,
        "seconds": round(seconds, 2),
        "task": contract.task,
        "robot": contract.embodiment,
        "policy": Path(config.policy).resolve().name,
        "policy_sha256": policy_hash,
        "training": {
            name: contract.provenance[name]
            for name in ("algorithm", "seed", "env_steps", "evaluation")
            if name in contract.provenance
        },
        "versions": {
            **versions(),
            "ros": os.environ.get("ROS_DISTRO", "unknown"),
            "rmw": get_rmw_implementation_identifier(),
        },
    }
    audit = node.audited()
    if audit is not None:
        result["commanded"] = audit.report()
    return result


def command_problem(node: Evaluator, trials: list[Trial]) -> str:
    """Return what is wrong with the trajectories that were sent; empty if nothing is."""
    audit = node.audited()
    if audit is None or audit.is_within_limits:
        return ""
    if audit.num_motions + audit.num_unreadable:
        return f"commands exceeded limits: {audit.report()}"
    periods = sum(trial.periods for trial in trials)
    return f"no trajectory was heard in {periods} periods with commands" if periods else ""


def in_process(
    config: EvaluatorConfig, policy: PolicyFile, folder: Path, trials: list[Trial]
) -> dict[str, Any]:
    """Return the same episodes' outcomes without ROS, beside the deployed ones."""
    keys = held_out_keys(len(trials), config.seed, config.first_episode)
    return compared(trials, in_process_outcomes(policy, keys, folder, config.simulator))


def _rate(trials: list[Trial]) -> str:
    counted = [trial for trial in trials if not trial.error]
    successes = sum(trial.success for trial in counted)
    low, high = wilson_interval(successes, len(counted))
    rate = successes / max(1, len(counted))
    return f"{rate:.3f} [{low:.3f}, {high:.3f}] ({successes}/{len(counted)})"


def evaluate(process: Process) -> int:
    """Run the trials, write the file, say where it is; return the exit code."""
    node: Evaluator = process.node
    node.process = process
    config, log = node.config, node.get_logger()
    try:
        if not config.policy:
            raise ConfigurationError("parameter 'policy' is empty", expected="an ONNX file")
        policy_hash = hashlib.sha256(read_graph(Path(config.policy), MAX_BYTES)).hexdigest()
        policy = load_policy_file(config.policy)
        node.listen_to_commands(trained_robot(policy.contract))
        node.wait_until_ready()
        began = time.monotonic()
        trials = run_trials(node, log.info)
        seconds = time.monotonic() - began
        log.info(f"success {_rate(trials)} in {seconds:.1f} s")
        if fault := command_problem(node, trials):
            log.error(fault)
        result = report(node, policy, policy_hash, trials, seconds)
        folder = Path(config.policy).resolve().parent
        path = write_report(folder, result)
        log.info(f"wrote {path}")
        if config.compare_in_process and not process.stopping.is_set():
            result["in_process"] = in_process(config, policy, folder, trials)
            write_json(path, result)
    except (GrpoRosError, OSError) as problem:
        log.error(str(problem))
        return 1
    return 0 if result["is_complete"] and not fault else 1


def main(args: list[str] | None = None) -> int:
    """Run the trials of one policy."""
    with spinning(Evaluator, None, args) as process:
        return evaluate(process)


if __name__ == "__main__":
    leave(main())
