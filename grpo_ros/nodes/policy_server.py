"""Policy server: runs an exported policy on a robot, through topics and actions only.

A lifecycle node. Configured, it has verified the policy file and found that it fits the robot.
Active, it observes and holds. `~/start` lets the policy act, `~/stop` ends that.

Subscribes:
    joint_states (sensor_msgs/JointState).
    objects/<body>/pose (geometry_msgs/PoseStamped): each body that the contract observes.
Publishes:
    <arm controller>/joint_trajectory (trajectory_msgs/JointTrajectory): the targets to come.
    ~/predicted_chunk (the same type): each inference's whole chunk.
    ~/status (diagnostic_msgs/DiagnosticStatus, latched): phase and why.
    /diagnostics (diagnostic_msgs/DiagnosticArray): once a second, counts and latencies.
Action client:
    <gripper> (control_msgs/GripperCommand): only when the binary command changes.
Services:
    ~/start, ~/stop (std_srvs/Trigger): ~/stop answers with a JSON summary of the episode.
    ~/mark_outcome (std_srvs/SetBool): an episode's outcome as someone saw it.
Parameters: `PolicyServerConfig`.
Lock step: a tick happens when all inputs carry one new stamp, and its command carries that stamp.
Otherwise ticks come from the node's clock at the control rate.

    ros2 run grpo_ros policy_server --ros-args -p policy:=FILE.onnx -p use_sim_time:=true
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import Any

import rclpy.clock
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.clock import ClockType
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from grpo_ros import typed
from grpo_ros.controllers import make_controller
from grpo_ros.deployment.latency import LatencyWindow
from grpo_ros.deployment.matching import check_match
from grpo_ros.deployment.policy_runner import Command, Hold, PolicyRunner, RunnerConfig
from grpo_ros.errors import ConfigurationError, ContractError
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.nodes import messages, qos
from grpo_ros.nodes.gripper_commander import GripperCommander
from grpo_ros.nodes.lifecycle import SUCCESS, GuardedLifecycleNode
from grpo_ros.nodes.parameters import read_parameters
from grpo_ros.nodes.policy_health import health, quantiles
from grpo_ros.nodes.process import spinning
from grpo_ros.robots.robot import load_robot

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclasses.dataclass(frozen=True)
class PolicyServerConfig:
    """Parameters of the policy server."""

    policy: str = typed.setting("", "ONNX file of the policy")
    robot: str = typed.setting("", "Robot description, name or folder; empty: the policy's own")
    lock_step: bool = typed.setting(False, "Tick on stamps instead of on the clock")
    autostart: bool = typed.setting(True, "Configure and activate at once")
    joint_states_topic: str = typed.setting("", "Empty: as the robot description says")
    object_topic: str = typed.setting("objects/{name}/pose", "Topic of a body's pose")
    runner: RunnerConfig = typed.setting(factory=RunnerConfig, description="Ages and patience")


class PolicyServer(GuardedLifecycleNode):
    """See the module's docstring."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("policy_server", **kwargs)
        self.config = read_parameters(self, PolicyServerConfig(), read_only=False)
        self.runner: PolicyRunner | None = None
        self._made: list[Any] = []
        self._last_tick_ns = -1
        self._last_command: Command | None = None
        self._gripper: GripperCommander | None = None
        self._marked = {True: 0, False: 0}
        self._shown: tuple[bytes, str] | None = None
        self._command_latency = LatencyWindow()
        self._arrival_s = 0.0
        self._status = self.create_publisher(DiagnosticStatus, "~/status", qos.LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(SetBool, "~/mark_outcome", self._on_mark_outcome)
        wall = rclpy.clock.Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._publish_diagnostics, clock=wall)
        self._show(OK, "unconfigured")

    # ---------------------------------------------------------------- lifecycle

    def configure(self) -> None:
        """Read and verify the policy, match it with the robot, try one inference."""
        self.config = config = read_parameters(self, PolicyServerConfig(), read_only=False)
        if not config.policy:
            raise ConfigurationError("parameter 'policy' is empty", expected="an ONNX file")
        policy = load_policy_file(config.policy)
        contract = policy.contract
        if contract.noise_shape:
            raise ContractError(
                f"the policy needs noise of shape {contract.noise_shape}",
                expected="a policy that is exported by its mode, without noise",
            )
        robot = load_robot(config.robot or contract.embodiment)
        check_match(contract, robot)
        controller = make_controller(contract, robot)
        self.runner = PolicyRunner(contract, policy.infer, robot, controller, config.runner)
        self.runner.warm_up()
        self.contract, self.robot = contract, robot
        self._period_ns = round(contract.period_s * messages.NANOSECONDS)
        interfaces = robot.interfaces
        self._arm = self.create_lifecycle_publisher(
            JointTrajectory, interfaces.arm_trajectory_topic, qos.COMMAND
        )
        self._predicted = self.create_lifecycle_publisher(
            JointTrajectory, "~/predicted_chunk", qos.STATE
        )
        if self.runner.gripper_limit is not None:
            self._gripper = GripperCommander(
                self, interfaces.gripper_action, config.lock_step, self._send, self._refuse_gripper
            )
        self.get_logger().info(
            f"configured: task '{contract.task}', robot '{robot.name}', "
            f"{contract.control_rate_hz:g} Hz, chunks of {contract.chunk_size}, "
            f"{policy.provider}, {config.policy}"
        )

    def activate(self) -> None:
        """Subscribe to what the contract observes; hold."""
        topic = self.config.joint_states_topic or self.robot.interfaces.joint_states
        profile = qos.STATE if self.config.lock_step else qos.SENSOR
        self._made = [self.create_subscription(JointState, topic, self._on_joints, profile)]
        for body in self._require_runner().buffer.body_names:
            self._made.append(
                self.create_subscription(
                    PoseStamped,
                    self.config.object_topic.format(name=body),
                    lambda message, body=body: self._on_pose(body, message),
                    profile,
                )
            )
        if not self.config.lock_step:
            self._made.append(self.create_timer(self.contract.period_s, self._on_timer))
        self._show(OK, "holding")

    def stop(self) -> None:
        """Stop the policy and let the arm come to rest."""
        if self.runner is not None:
            self._halt("the node goes down")
        for made in self._made:
            if hasattr(made, "cancel"):
                self.destroy_timer(made)
            else:
                self.destroy_subscription(made)
        self._made = []
        self._show(OK, "inactive")

    def cleanup(self) -> None:
        """Forget the policy."""
        if self.runner is not None:
            self.destroy_lifecycle_publisher(self._arm)
            self.destroy_lifecycle_publisher(self._predicted)
            if self._gripper is not None:
                self._gripper.destroy()
        self.runner = self._gripper = None
        self._show(ERROR if self.failure else OK, self.failure or "unconfigured")

    def on_failure(self, where: str, reason: str) -> None:
        """Stop the policy after an exception in a callback."""
        if self.runner is not None and self.runner.phase == "running":
            self._halt(f"{where}: {reason}")
            self._show(ERROR, f"{where}: {reason}")

    # ---------------------------------------------------------------- services

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        runner = self.runner
        if runner is None or self.state_label != "active":
            reason = f": {self.failure}" if self.failure else ""
            response.message = f"the node is {self.state_label}{reason}"
            return response
        if runner.phase == "running":
            response.message = "already running; call ~/stop first"
            return response
        # Lock step needs no age: a stamp that was answered already is never answered again.
        runner.start(0 if self.config.lock_step else self.get_clock().now().nanoseconds)
        self._last_command = None
        self._show(OK, "running")
        if self.config.lock_step:
            self._tick_if_aligned()
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
        }
        self._halt("stopped on request")
        self._show(OK, "holding")
        response.success, response.message = True, json.dumps(summary)
        return response

    def _on_mark_outcome(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        self._marked[request.data] += 1
        response.success = True
        response.message = f"{self._marked[True]} of {sum(self._marked.values())} succeeded"
        return response

    # ---------------------------------------------------------------- inputs

    def _on_joints(self, message: JointState) -> None:
        runner, stamp_ns = self._require_runner(), messages.to_ns(message.header.stamp)
        self._arrival_s = time.perf_counter()
        if stamp_ns < self._last_tick_ns - messages.NANOSECONDS:
            self._on_jump_back()
        runner.buffer.put_joint_state(
            stamp_ns,
            message.name,
            messages.from_doubles(message.position),
            messages.from_doubles(message.velocity),
        )
        if self.config.lock_step:
            if stamp_ns == self._last_tick_ns:
                self._repeat_last()
            self._tick_if_aligned()

    def _on_pose(self, body: str, message: PoseStamped) -> None:
        point, turn = message.pose.position, message.pose.orientation
        self._arrival_s = time.perf_counter()
        self._require_runner().buffer.put_pose(
            messages.to_ns(message.header.stamp),
            body,
            message.header.frame_id,
            (point.x, point.y, point.z),
            (turn.x, turn.y, turn.z, turn.w),
        )
        if self.config.lock_step:
            self._tick_if_aligned()

    # ---------------------------------------------------------------- ticks

    def _on_timer(self) -> None:
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
        answer = runner.tick(now_ns)
        if isinstance(answer, Hold):
            self._hold(answer, was_at_rest)
            return
        self._show(WARN if answer.interventions else OK, "running")
        if answer.interventions:
            self.get_logger().warning(
                f"safety gate: {answer.interventions[0].reason}", throttle_duration_sec=1.0
            )
        if answer.gripper is None or self._gripper is None:
            self._send(answer)
        else:
            self._gripper.submit(answer)

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
        self._require_runner().buffer.clear()
        self._last_tick_ns = -1

    def _hold(self, hold: Hold, was_at_rest: bool) -> None:
        if len(hold.points) and (self.config.lock_step or not was_at_rest):
            self._publish_arm(hold.stamp_ns, hold.points)
        if hold.kind in ("holding", "finished"):
            self._show(OK, hold.kind if hold.kind == "holding" else hold.reason)
        elif hold.kind == "stopped":
            self._show(ERROR, hold.reason)
        elif self._require_runner().is_placed:
            self._show(WARN, f"{hold.kind}: {hold.reason}", hold.kind)
        else:
            self._show(OK, f"waiting for inputs: {hold.reason}", "waiting")

    def _send(self, command: Command) -> None:
        """Send the arm's targets unless something was stopped or held meanwhile."""
        if not self._require_runner().may_send(command):
            return
        self._last_command = command
        self._publish_arm(command.stamp_ns, command.points)
        self._command_latency.add(time.perf_counter() - self._arrival_s)

    def _publish_arm(self, stamp_ns: int, points: Any) -> None:
        runner = self._require_runner()
        names = runner.gate.joint_names
        message = messages.trajectory(stamp_ns, names, points, self._period_ns)
        self._arm.publish(message)
        if runner.executor.step_in_chunk == 1 and self._predicted.get_subscription_count():
            self._predicted.publish(message)

    def _repeat_last(self) -> None:
        """Lock step: the same observation again means that its command was lost."""
        command = self._last_command
        if command is not None and self._require_runner().may_send(command):
            self._publish_arm(command.stamp_ns, command.points)

    def _refuse_gripper(self, reason: str) -> None:
        self.get_logger().error(reason)
        self._halt(reason)
        self._show(ERROR, reason)

    # ---------------------------------------------------------------- output

    def _halt(self, reason: str) -> None:
        """Stop the policy; the last word on the wire is a target at rest."""
        runner = self._require_runner()
        was_running = runner.phase == "running"
        points = runner.stop(reason, "holding")
        self._last_command = None
        if self._gripper is not None:
            self._gripper.forget()
        if was_running and len(points) and not self.config.lock_step:
            self._publish_arm(self.get_clock().now().nanoseconds, points)

    def _require_runner(self) -> PolicyRunner:
        if self.runner is None:
            raise ConfigurationError("the policy server is not configured")
        return self.runner

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

    def _publish_diagnostics(self) -> None:
        if self._gripper is not None:
            self._gripper.check_deadline()
        level, message = self._shown or (OK, self.state_label)
        values: dict[str, object] = {
            "state": self.state_label,
            "marked_success": self._marked[True],
            "marked_failure": self._marked[False],
        }
        if self.runner is not None:
            values.update(health(self.runner))
            values.update(quantiles("input_to_command", self._command_latency))
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
