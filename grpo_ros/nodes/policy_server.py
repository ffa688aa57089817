"""Policy server: runs an exported policy on a robot, through topics and actions only.

A lifecycle node. Configured, it has verified the policy file, found that it fits the robot's
description and the topics that are there, and tried it once. Active, it observes and holds.
`~/start` lets the policy act once a full fresh observation has come; `~/stop` ends that.

Subscribes:
    What the contract observes; see `observation_inputs`.
    robot_description (std_msgs/String): limits that are compared with the contract's.
    The enable switch, the robot's mode, external torques, where they are named; see
    `fault_inputs`.
Publishes:
    The robot's commands, over the interface that its description names; see `command_output`.
    ~/predicted_chunk (trajectory_msgs/JointTrajectory): each inference's whole chunk.
    ~/predicted_path (nav_msgs/Path): the way of the tip, or of the base, along it.
    ~/interventions (diagnostic_msgs/DiagnosticStatus): what the safety gate changed, and why.
    ~/status (diagnostic_msgs/DiagnosticStatus, latched): phase and why.
    /diagnostics (diagnostic_msgs/DiagnosticArray): once a second, counts and latencies.
Action clients:
    <gripper> (control_msgs/GripperCommand or ParallelGripperCommand): when its command changes.
    <arm> (control_msgs/FollowJointTrajectory): where the description says trajectory_action.
Actions:
    navigate_to_pose (nav2_msgs/NavigateToPose): policies of bases that go to a goal.
Services:
    ~/start, ~/stop (std_srvs/Trigger): ~/stop answers with a JSON summary of the episode.
    ~/mark_outcome (std_srvs/SetBool): the last run's outcome as someone saw it.
Parameters: `policy_config.PolicyServerConfig`.
Lock step: a tick happens when all inputs carry one new stamp, and its command carries that stamp.
Otherwise ticks come from the node's clock at the control rate.
On the way down, whatever the way: stop, wait, bring the robot to rest.

    ros2 run grpo_ros policy_server --ros-args -p policy:=FILE.onnx -p use_sim_time:=true
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy.clock
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import ClockType
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from grpo_ros.controllers import make_controller
from grpo_ros.deployment.answers import Command
from grpo_ros.deployment.inference import InlineInference, ThreadedInference
from grpo_ros.deployment.matching import check_match, trained_robot
from grpo_ros.deployment.policy_runner import PolicyRunner
from grpo_ros.deployment.records.live_outcome import LiveOutcome
from grpo_ros.deployment.records.run_record import RecordWriter, RunRecord
from grpo_ros.errors import ContractError
from grpo_ros.export.policy_file import PolicyFile, load_policy_file
from grpo_ros.nodes.inputs.observation_inputs import ObservationInputs
from grpo_ros.nodes.recording.black_box import BlackBox, provenance
from grpo_ros.nodes.serving.command_output import make_output
from grpo_ros.nodes.serving.fault_inputs import FaultInputs
from grpo_ros.nodes.serving.live_robot import LiveRobot
from grpo_ros.nodes.serving.policy_config import (
    PolicyServerConfig,
    check_config,
    command_kind,
    runner_settings,
)
from grpo_ros.nodes.serving.predicted_output import PredictedOutput
from grpo_ros.nodes.serving.run_control import RunControl
from grpo_ros.nodes.serving.status_output import StatusOutput
from grpo_ros.nodes.shared.lifecycle import SUCCESS, GuardedLifecycleNode
from grpo_ros.nodes.shared.parameters import read_parameters
from grpo_ros.nodes.shared.process import leave, spinning
from grpo_ros.robots.robot import Robot, load_robot

CLOCK = ("/clock", "rosgraph_msgs/msg/Clock")
OK, ERROR = DiagnosticStatus.OK, DiagnosticStatus.ERROR


class PolicyServer(GuardedLifecycleNode):
    """See the module's docstring."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("policy_server", **kwargs)
        self.config = read_parameters(self, PolicyServerConfig(), read_only=False)
        self.stopping = threading.Event()
        """Set once the process is to end: nothing is waited for any more."""
        self._made = contextlib.ExitStack()
        """What frees the things that were made in configure, the last one first."""
        self.black_box = BlackBox(self, 0.0, Path())
        self._forget_what_was_made()
        self._live = LiveRobot(self, lambda: self.stopping.is_set())
        self._status = StatusOutput(self)
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(SetBool, "~/mark_outcome", self._on_mark_outcome)
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._on_second, clock=wall)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self.show(OK, "unconfigured")

    def _forget_what_was_made(self) -> None:
        self.control: RunControl | None = None
        self._inputs: ObservationInputs | None = None
        self._fault_inputs: FaultInputs | None = None
        self.navigate: Any = None
        self._predicted: PredictedOutput | None = None

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        """Verify the policy, match it with the robot that is there, try one inference."""
        self.config = config = read_parameters(self, PolicyServerConfig(), read_only=False)
        check_config(config, self.get_clock().ros_time_is_active)
        policy = load_policy_file(config.policy, config.providers)
        robot = load_robot(config.robot) if config.robot else trained_robot(policy.contract)
        check_match(policy.contract, robot)
        runner = self._make_runner(policy, robot)
        runner.warm_up()
        folder = Path(
            config.black_box_folder or Path(config.policy).resolve().parent / "black_box"
        )
        about = provenance(config, policy.contract)
        self.black_box = BlackBox(self, config.black_box_s, folder, about)
        self._made.callback(self.black_box.close)
        self.control = control = self._make_control(policy, robot, runner)
        self._listen(robot)
        self._check_live(robot)
        self._predicted = PredictedOutput(self, runner)
        self._made.callback(self._predicted.destroy)
        gc.collect()
        gc.freeze()  # a full collection, which stops every thread, has less to look at
        self.get_logger().info(
            f"configured: task '{policy.contract.task}', robot '{robot.name}', "
            f"{1.0 / runner.period_s:g} Hz, chunks of {policy.contract.chunk_size}, "
            f"{control.output.type_name} to '{control.output.name}', {policy.provider}, "
            f"{config.policy}"
        )

    def _make_runner(self, policy: PolicyFile, robot: Robot) -> PolicyRunner:
        kind = InlineInference if self.config.lock_step else ThreadedInference
        inference = kind(policy.infer)
        self._made.callback(inference.close)
        return PolicyRunner(
            policy.contract,
            policy.infer,
            robot,
            make_controller(policy.contract, robot),
            runner_settings(self.config),
            inference,
        )

    def _make_control(self, policy: PolicyFile, robot: Robot, runner: PolicyRunner) -> RunControl:
        config, contract = self.config, policy.contract
        kind = command_kind(config, robot, runner.is_base)
        output = make_output(
            self,
            robot,
            kind,
            lock_step=config.lock_step,
            period_s=runner.period_s,
            rate_hz=config.stream_rate_hz,
            on_failure=lambda reason: self._require_control().fail(reason),
            on_message=self.black_box.note,
        )
        self._made.callback(output.destroy)
        path = Path(config.policy).resolve()
        mode = "dry_run" if config.dry_run else "hardware" if config.hardware else "simulated"
        record = RunRecord(path, contract, {"mode": mode, "command": kind})
        outcome = LiveOutcome(contract, path.parent, runner.buffer.body_names)
        control = RunControl(self, config, runner, output, record, outcome)
        if runner.gripper.limit is not None and not config.dry_run:
            self._made.callback(control.use_gripper(robot, self.black_box.note).destroy)
        return control

    def _listen(self, robot: Robot) -> None:
        control, config = self._require_control(), self.config
        runner = control.runner
        may_begin_anew = config.lock_step or self.get_clock().ros_time_is_active
        self._inputs = ObservationInputs(
            self,
            runner.contract,
            robot,
            runner.buffer,
            config.inputs,
            control.on_input,
            config.lock_step,
            control.on_jump_back if may_begin_anew else None,
            self.black_box.note,
        )
        self._made.callback(self._inputs.destroy)
        self._fault_inputs = FaultInputs(
            self,
            robot,
            runner.config.faults,
            runner.faults,
            control.on_fault_input,
            self.black_box.note,
        )
        self._made.callback(self._fault_inputs.destroy)
        control.after_run.append(lambda reason: self.black_box.event("stop", reason=reason))
        if config.hardware:
            writer = RecordWriter(control.record, lambda what: self.get_logger().error(what))
            self._made.callback(self._write_down, writer)
        if runner.is_base and config.goal_body in runner.buffer.body_names:
            self.navigate = self._offer_navigation(control, self._inputs)

    def _write_down(self, writer: RecordWriter) -> None:
        path = writer.close()
        if path is not None:
            self.get_logger().info(f"wrote {path}")

    def _offer_navigation(self, control: RunControl, inputs: ObservationInputs) -> Any:
        """Return the action navigate_to_pose; None where its package is not installed."""
        try:
            from grpo_ros.nodes.serving.navigate_server import NavigateServer
        except ImportError as problem:
            self.get_logger().info(
                f"no navigate_to_pose ({problem}); install ros-jazzy-nav2-msgs to have it"
            )
            return None
        server = NavigateServer(self, control, inputs, self.start_problem)
        self._made.callback(server.destroy)
        return server

    def _check_live(self, robot: Robot) -> None:
        """Refuse a robot whose topics, types or limits are not those of the policy."""
        control = self._require_control()
        assert self._inputs is not None and self._fault_inputs is not None
        given = "" if self.navigate is None else self.navigate.goal_topic
        topics = [topic for topic in self._inputs.topics() if topic[0] != given]
        clock = [CLOCK] if self.get_clock().ros_time_is_active else []
        self._live.wait_for(
            [*topics, *self._fault_inputs.topics(), *clock],
            control.command_problem,
            self.config.interface_timeout_s,
            self._fault_inputs.remedies,
        )
        self._live.check_description(control.runner.contract, robot)

    def activate(self) -> None:
        """Observe, and hold."""
        self._require_control().begin_ticks()
        self.show(OK, "holding")

    def stop(self) -> None:
        """Stop the policy, wait, and bring the robot to rest, whatever fails on the way."""
        if self.control is not None:
            self.control.end_ticks()
            try:
                self.control.halt("the node goes down")
            except Exception as problem:
                self.show(ERROR, f"inactive; the stop failed: {type(problem).__name__}: {problem}")
                raise
            finally:
                self.control.output.finish()
        self.show(OK, "inactive")

    def cleanup(self) -> None:
        """Forget the policy; write down what was run."""
        try:
            self._made.close()
        finally:
            self._forget_what_was_made()
            gc.unfreeze()  # what was made refers to itself: only a collection frees its policy
            gc.collect()
        self.show(ERROR if self.failure else OK, self.failure or "unconfigured")

    def on_failure(self, where: str, reason: str) -> None:
        """Stop the policy after an exception in a callback."""
        if self.control is not None and self.control.is_running:
            self.control.fail(f"{where}: {reason}")

    def _on_set_parameters(self, _: Sequence[Parameter]) -> SetParametersResult:
        """Refuse what would not take effect: parameters are read when the node is configured."""
        if self.state_label in ("unconfigured", "configuring"):
            return SetParametersResult(successful=True)
        reason = f"the node is {self.state_label}: deactivate and clean up first"
        return SetParametersResult(successful=False, reason=reason)

    # ---------------------------------------------------------------- services

    def start_problem(self) -> str:
        """Return what keeps a run from beginning now; empty if nothing does."""
        control = self.control
        if control is None or self.state_label != "active":
            why = f": {self.failure}" if self.failure else ""
            return f"the node is {self.state_label}{why}"
        try:
            self._live.check_description(control.runner.contract, control.runner.robot)
        except ContractError as problem:
            return str(problem)
        return control.start_problem()

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = self.start_problem()
        if not response.message:
            self._require_control().start()
            response.success, response.message = True, "running"
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        control = self.control
        if control is None:
            response.message = f"the node is {self.state_label}"
            return response
        response.success, response.message = True, control.summary()
        control.halt("stopped on request")
        self.show(OK, "holding")
        return response

    def _on_mark_outcome(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        record = None if self.control is None else self.control.record
        if record is None or not record.mark(request.data, "operator"):
            response.message = "there was no run to mark"
            return response
        successes, known = record.counts()
        response.success, response.message = True, f"{successes} of {known} succeeded"
        return response

    # ---------------------------------------------------------------- for RunControl

    def forget_inputs(self) -> None:
        """Forget all inputs."""
        if self._inputs is not None:
            self._inputs.forget()

    def show(self, level: bytes, message: str, key: str = "", fault: str = "") -> None:
        """Say what the node does, or why not; see `StatusOutput.show`."""
        self._status.show(level, message, key, fault)

    def report(self, kind: str, reason: str) -> None:
        """Publish an intervention of the gate."""
        runner = self._require_control().runner
        self._status.report(kind, reason, runner.gate.counts[kind], runner.num_periods)

    def show_chunk(self, command: Command) -> None:
        """Publish what the policy foresees, where anyone wants to see it."""
        if self._predicted is not None:
            self._predicted.publish(command)

    def _require_control(self) -> RunControl:
        assert self.control is not None, "the policy server is not configured"
        return self.control

    # ---------------------------------------------------------------- health

    def _on_second(self) -> None:
        """Publish diagnostics; watch what changes slowly."""
        control = self.control
        if control is not None:
            control.on_second()
        values: dict[str, object] = {"state": self.state_label}
        if control is not None:
            values["marked_success"], values["marked"] = control.record.counts()
            now_ns = self.get_clock().now().nanoseconds
            values.update(control.health.values(control.runner, now_ns))
        self._status.diagnose(values)


def autostart(node: PolicyServer) -> None:
    """Configure and activate; what keeps it from that is in the log and in the status."""
    if node.trigger_configure() == SUCCESS:
        node.trigger_activate()


def go_down(node: PolicyServer) -> None:
    """Stop and finalise, whatever the state."""
    if node.state_label in ("unconfigured", "inactive", "active"):
        node.trigger_shutdown()


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    with spinning(PolicyServer, go_down, args) as process:
        process.node.stopping = process.stopping
        if process.node.config.autostart:
            process.call(lambda: autostart(process.node), timeout_s=60.0)
        exit_code = process.wait()
        if process.node.navigate is not None:
            process.node.navigate.go_down(process.call)
        return exit_code


if __name__ == "__main__":
    leave(main())
