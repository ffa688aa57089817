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

import json
import sys
import time
from pathlib import Path
from typing import Any

import rclpy.clock
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import ClockType
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from grpo_ros.controllers import make_controller
from grpo_ros.deployment.answers import Command, Hold, Motion
from grpo_ros.deployment.inference import InlineInference, ThreadedInference
from grpo_ros.deployment.live_outcome import LiveOutcome
from grpo_ros.deployment.matching import check_match
from grpo_ros.deployment.policy_runner import PolicyRunner
from grpo_ros.deployment.run_record import RunRecord
from grpo_ros.errors import ConfigurationError
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.nodes import messages, qos
from grpo_ros.nodes.command_output import CommandOutput, make_output
from grpo_ros.nodes.fault_inputs import FaultInputs
from grpo_ros.nodes.gripper_commander import GripperCommander
from grpo_ros.nodes.lifecycle import SUCCESS, GuardedLifecycleNode
from grpo_ros.nodes.live_robot import LiveRobot
from grpo_ros.nodes.observation_inputs import ObservationInputs
from grpo_ros.nodes.parameters import read_parameters
from grpo_ros.nodes.policy_config import (
    PolicyServerConfig,
    check_config,
    command_kind,
    runner_settings,
)
from grpo_ros.nodes.policy_health import PolicyHealth
from grpo_ros.nodes.process import spinning
from grpo_ros.robots.robot import load_robot

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
STALE = DiagnosticStatus.STALE
QUIET = ("holding", "finished")
LATCHED_FAULTS = ("stopped", "enable", "robot_mode", "tracking", "external_torque")


class PolicyServer(GuardedLifecycleNode):
    """See the module's docstring."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("policy_server", **kwargs)
        self.config = read_parameters(self, PolicyServerConfig(), read_only=False)
        self.runner: PolicyRunner | None = None
        self.output: CommandOutput | None = None
        self.record: RunRecord | None = None
        self._gripper: GripperCommander | None = None
        self._inputs: ObservationInputs | None = None
        self._fault_inputs: FaultInputs | None = None
        self._timer: Any = None
        self._last_tick_ns = -1
        self._last_motion: Motion | None = None
        self._shown: tuple[bytes, str] | None = None
        self._live = LiveRobot(self)
        self.health = PolicyHealth()
        self._status = self.create_publisher(DiagnosticStatus, "~/status", qos.LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self._interventions = self.create_publisher(
            DiagnosticStatus, "~/interventions", qos.DIAGNOSTICS
        )
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(SetBool, "~/mark_outcome", self._on_mark_outcome)
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._on_second, clock=wall)
        self._show(OK, "unconfigured")

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        """Verify the policy, match it with the robot that is there, try one inference."""
        self.config = config = read_parameters(self, PolicyServerConfig(), read_only=False)
        check_config(config)
        policy = load_policy_file(config.policy, config.providers)
        self.contract = contract = policy.contract
        self.robot = robot = load_robot(config.robot or contract.embodiment)
        check_match(contract, robot)
        inference = InlineInference if config.lock_step else ThreadedInference
        settings = runner_settings(config)
        self.runner = runner = PolicyRunner(
            contract,
            policy.infer,
            robot,
            make_controller(contract, robot),
            settings,
            inference(policy.infer),
        )
        runner.warm_up()
        self._period_ns = round(runner.period_s * messages.NANOSECONDS)
        kind = command_kind(config, robot, runner.is_base)
        self.output = make_output(
            self,
            robot,
            kind,
            lock_step=config.lock_step,
            period_s=runner.period_s,
            rate_hz=config.stream_rate_hz,
            on_failure=self._on_refusal,
        )
        self._predicted = self.create_lifecycle_publisher(
            JointTrajectory, "~/predicted_chunk", qos.STATE
        )
        if runner.gripper_limit is not None and not config.dry_run:
            self._gripper = GripperCommander(
                self, robot, config.lock_step, self._send, self._on_refusal
            )
        self._fault_inputs = FaultInputs(
            self, robot, settings.faults, runner.faults, self._on_fault_input
        )
        self._listen()
        self._check_live()
        folder = Path(config.policy).resolve().parent
        self.outcome = LiveOutcome(contract, folder, runner.buffer.body_names)
        how = {"mode": "dry_run" if config.dry_run else "hardware", "command": kind}
        self.record = RunRecord(Path(config.policy).resolve(), contract, how)
        self.get_logger().info(
            f"configured: task '{contract.task}', robot '{robot.name}', "
            f"{1.0 / runner.period_s:g} Hz, chunks of {contract.chunk_size}, {kind} to "
            f"'{self.output.name}', {policy.provider}, {config.policy}"
        )

    def _listen(self) -> None:
        runner = self._require_runner()
        self._inputs = ObservationInputs(
            self,
            self.contract,
            self.robot,
            runner.buffer,
            self.config.inputs,
            self._on_input,
            self.config.lock_step,
            self._on_jump_back,
        )

    def _check_live(self) -> None:
        """Refuse a robot whose topics, types or limits are not those of the policy."""
        assert self.output is not None and self._inputs is not None
        assert self._fault_inputs is not None
        output, is_dry = self.output, self.config.dry_run
        goal = self._goal_topic()
        topics = [topic for topic in self._inputs.topics() if topic[0] != goal]
        self._live.wait_for(
            [*topics, *self._fault_inputs.topics()],
            lambda: "" if is_dry else output.problem(),
            self.config.interface_timeout_s,
        )
        self._live.check_description(self.contract, self.robot)

    def _goal_topic(self) -> str:
        """Return the topic that navigate_to_pose stands in for; empty for arms."""
        if not self._require_runner().is_base or not self.config.goal_body:
            return ""
        return str(
            self.resolve_topic_name(
                self.config.inputs.object_topic.format(name=self.config.goal_body)
            )
        )

    def activate(self) -> None:
        """Observe, and hold."""
        self._require_runner()
        if not self.config.lock_step:
            self._timer = self.create_timer(self._period_ns / messages.NANOSECONDS, self._on_timer)
        self._show(OK, "holding")

    def stop(self) -> None:
        """Stop the policy, wait, and bring the robot to rest."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        if self.runner is not None:
            self._halt("the node goes down")
            if self.output is not None:
                self.output.finish()
        self._show(OK, "inactive")

    def cleanup(self) -> None:
        """Forget the policy; write down what was run."""
        if self.record is not None and self.config.hardware:
            path = self.record.write()
            if path is not None:
                self.get_logger().info(f"wrote {path}")
        for made in (self._inputs, self._fault_inputs, self.output, self._gripper):
            if made is not None:
                made.destroy()
        if self.runner is not None:
            self.runner.inference.close()
            self.destroy_lifecycle_publisher(self._predicted)
        self.runner = self.record = self.output = None
        self._gripper = self._inputs = self._fault_inputs = None
        self._show(ERROR if self.failure else OK, self.failure or "unconfigured")

    def on_failure(self, where: str, reason: str) -> None:
        """Stop the policy after an exception in a callback."""
        if self.runner is not None and self.runner.phase == "running":
            self._halt(f"{where}: {reason}")
            self._show(ERROR, f"{where}: {reason}")

    # ---------------------------------------------------------------- services

    def start_problem(self) -> str:
        """Return what keeps a run from beginning now; empty if nothing does."""
        runner = self.runner
        if runner is None or self.output is None or self.state_label != "active":
            return f"the node is {self.state_label}" + (
                f": {self.failure}" if self.failure else ""
            )
        if runner.phase == "running":
            return "already running; call ~/stop first"
        fault = runner.faults.problem(time.monotonic())
        if fault is not None:
            return fault.reason
        self._live.check_description(self.contract, self.robot)
        return "" if self.config.dry_run else self.output.problem()

    def start(self) -> None:
        """Begin a run; it waits for a full observation that is younger than this call."""
        runner = self._require_runner()
        # Lock step needs no age: a stamp that was answered already is never answered again.
        runner.start(0 if self.config.lock_step else self.get_clock().now().nanoseconds)
        self._last_motion = None
        if self.record is not None:
            self.record.begin()
        self._show(OK, "running")
        if self.config.lock_step:
            self._tick_if_aligned()

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.message = self.start_problem()
        if response.message:
            return response
        self.start()
        response.success, response.message = True, "running"
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self.runner is None:
            response.message = f"the node is {self.state_label}"
            return response
        summary = {
            "phase": self.runner.phase,
            "reason": self.runner.reason,
            "periods": self.runner.num_periods,
            "interventions": dict(self.runner.gate.counts),
            "held": dict(self.runner.held),
            "out_of_range": dict(self.runner.range.counts),
        }
        self._halt("stopped on request")
        self._show(OK, "holding")
        response.success, response.message = True, json.dumps(summary)
        return response

    def _on_mark_outcome(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        if self.record is None or not self.record.mark(request.data, "operator"):
            response.message = "there was no run to mark"
            return response
        successes, known = self.record.counts()
        response.success, response.message = True, f"{successes} of {known} succeeded"
        return response

    # ---------------------------------------------------------------- ticks

    def _on_input(self) -> None:
        self.health.note_input()
        if not self.config.lock_step:
            return
        runner = self._require_runner()
        if runner.buffer.aligned_ns() == self._last_tick_ns:
            self._repeat_last()
        self._tick_if_aligned()

    def _on_fault_input(self) -> None:
        """Do not wait for the next tick where the operator lets go."""
        runner = self.runner
        if runner is None or runner.phase != "running" or self.config.lock_step:
            return
        if runner.faults.problem(time.monotonic()) is not None:
            self._on_timer()

    def _on_timer(self) -> None:
        self.health.note_tick(self._require_runner())
        self._tick(self.get_clock().now().nanoseconds)

    def _tick_if_aligned(self) -> None:
        """Lock step: tick once on each new stamp that all inputs share."""
        runner = self._require_runner()
        stamp_ns = runner.buffer.aligned_ns()
        if runner.phase == "running" and stamp_ns is not None and stamp_ns > self._last_tick_ns:
            self._tick(stamp_ns)

    def _tick(self, now_ns: int) -> None:
        runner = self._require_runner()
        if now_ns < self._last_tick_ns:
            self._on_jump_back()
        self._last_tick_ns = now_ns
        was_at_rest = runner.gate.is_at_rest
        was_running = runner.phase == "running"
        answer = runner.tick(now_ns, None if self.config.lock_step else time.monotonic())
        if isinstance(answer, Hold):
            self._hold(answer, was_at_rest)
        else:
            self._command(answer)
        if was_running and runner.phase != "running":
            self._end_run()

    def _command(self, command: Command) -> None:
        runner = self._require_runner()
        if command.interventions:
            self._show(WARN, f"running; {command.interventions[0].kind} limited", "limited")
        elif runner.out_of_range:
            what = f"running; outside what training saw: {', '.join(runner.out_of_range)}"
            self._show(WARN, what)
        else:
            self._show(OK, "running")
        for found in command.interventions:
            self._report(found.kind, found.reason)
        if command.is_new_chunk and self._predicted.get_subscription_count():
            points = command.points[: max(1, command.num_asked)]
            self._predicted.publish(
                messages.trajectory(command.stamp_ns, command.names, points, self._period_ns)
            )
        if command.gripper is None or self._gripper is None:
            self._send(command)
        else:
            self._gripper.submit(command)

    def _hold(self, hold: Hold, was_at_rest: bool) -> None:
        if len(hold.points) and (self.config.lock_step or not was_at_rest):
            self._publish(hold)
        if hold.kind in QUIET:
            self._show(OK, hold.kind if hold.kind == "holding" else hold.reason)
        elif hold.kind in LATCHED_FAULTS:
            self._show(ERROR, hold.reason)
        elif self._require_runner().is_placed:
            level = STALE if hold.kind == "stale" else WARN
            self._show(level, f"{hold.kind}: {hold.reason}", hold.kind)
        else:
            self._show(OK, f"waiting for inputs: {hold.reason}", "waiting")

    def _on_jump_back(self) -> None:
        """Forget inputs of a time that is yet to come, e.g. after the simulator was restarted."""
        num_clocks = self.count_publishers("/clock")
        remedy = (
            f"; {num_clocks} nodes publish /clock: give each simulation its own ROS_DOMAIN_ID"
            if num_clocks > 1
            else ""
        )
        self.get_logger().warning(
            f"the clock jumped back; inputs are forgotten{remedy}", throttle_duration_sec=1.0
        )
        if self._inputs is not None:
            self._inputs.forget()
        self._last_tick_ns = -1

    # ---------------------------------------------------------------- output

    def _send(self, command: Command) -> None:
        """Send the arm's targets unless something was stopped or held meanwhile."""
        if self._require_runner().may_send(command):
            self._publish(command)
            self.health.note_command()

    def _publish(self, motion: Motion) -> None:
        self._last_motion = motion
        if self.output is not None and not self.config.dry_run:
            self.output.send(motion)

    def _repeat_last(self) -> None:
        """Lock step: the same observation again means that its command was lost."""
        motion = self._last_motion
        if isinstance(motion, Command) and self._require_runner().may_send(motion):
            self._publish(motion)

    def _on_refusal(self, reason: str) -> None:
        """Stop: the robot's controller or gripper does not do what it is told."""
        self.get_logger().error(reason)
        self._halt(reason)
        self._show(ERROR, reason)

    def _halt(self, reason: str) -> None:
        """Stop the policy; the last word on the wire brings the robot to rest."""
        runner = self._require_runner()
        was_running = runner.phase == "running"
        names, epoch = runner.gate.joint_names, runner.gate.epoch
        braking = runner.stop(reason, "holding")
        self._last_motion = None
        if self._gripper is not None:
            self._gripper.forget()
        if not was_running:
            return
        if len(braking.points) and not self.config.lock_step:
            now_ns = self.get_clock().now().nanoseconds
            self._publish(
                Motion(epoch, runner.sequence, now_ns, names, braking.points, braking.curve)
            )
        self._end_run()

    def _end_run(self) -> None:
        runner = self._require_runner()
        if self.record is not None:
            self.record.end(runner.reason, runner.num_periods, runner.gate.counts, runner.held)

    def _require_runner(self) -> PolicyRunner:
        if self.runner is None:
            raise ConfigurationError("the policy server is not configured")
        return self.runner

    # ---------------------------------------------------------------- health

    def _report(self, kind: str, reason: str) -> None:
        """Publish an intervention of the gate."""
        runner = self._require_runner()
        self.get_logger().warning(f"safety gate: {reason}", throttle_duration_sec=1.0)
        values = {"kind": kind, "count": runner.gate.counts[kind], "period": runner.num_periods}
        self._interventions.publish(messages.status(WARN, self.get_name(), reason, values))

    def _show(self, level: bytes, message: str, key: str = "") -> None:
        """Publish the status where it changed; `key` tells changes apart that recur."""
        shown = level, key or message
        if shown == self._shown:
            return
        self._shown = shown
        values = {"policy": self.config.policy}
        if level != OK and message != self.failure:
            self.get_logger().warning(message)
        self._status.publish(messages.status(level, self.get_name(), message, values))

    def _on_second(self) -> None:
        """Publish diagnostics; watch what changes slowly."""
        runner = self.runner
        if self._gripper is not None:
            self._gripper.check_deadline()
        is_running = runner is not None and runner.phase == "running"
        if is_running and self.output is not None and not self.config.dry_run:
            problem = self.output.problem()
            if problem:
                self._on_refusal(problem)
        level, message = self._shown or (OK, self.state_label)
        values: dict[str, object] = {"state": self.state_label}
        if self.record is not None:
            values["marked_success"], values["marked"] = self.record.counts()
        if runner is not None:
            values.update(self.health.values(runner, self.get_clock().now().nanoseconds))
        array = DiagnosticArray(status=[messages.status(level, self.get_name(), message, values)])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


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
        if process.node.config.autostart:
            process.call(lambda: autostart(process.node), timeout_s=60.0)
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
