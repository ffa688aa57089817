"""Run control: begins, drives and ends the runs of one configured policy.

It owns what has to agree at every moment: the runner's phase, what is on the wire, the status and
the record. The policy server makes one when it is configured and drops it when it is cleaned up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType

from grpo_ros.deployment.answers import Command, Hold, Motion
from grpo_ros.deployment.policy_runner import PolicyRunner
from grpo_ros.deployment.records.live_outcome import LiveOutcome
from grpo_ros.deployment.records.run_record import RunRecord
from grpo_ros.nodes.recording.noting import OnMessage
from grpo_ros.nodes.serving.clock_watch import ClockWatch, StillWatch
from grpo_ros.nodes.serving.command_output import CommandOutput
from grpo_ros.nodes.serving.gripper_commander import (
    GripperCommander,
    StreamedGripper,
    make_gripper,
)
from grpo_ros.nodes.serving.policy_config import PolicyServerConfig
from grpo_ros.nodes.serving.policy_health import PolicyHealth
from grpo_ros.nodes.shared import messages
from grpo_ros.nodes.shared.lifecycle import guarded
from grpo_ros.robots.robot import Robot

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
STALE = DiagnosticStatus.STALE
QUIET = ("holding", "finished")
FAULTS = ("stopped", "enable", "robot_mode", "tracking", "external_torque")

SHORTEST_PERIOD = 0.5
"""Share of a control period before which there is no second tick."""


class RunControl:
    """See the module's docstring.

    Args:
        node: shows status, interventions and chunks (`show`, `report`, `show_chunk`), forgets
            inputs (`forget_inputs`), and has the clock.
        config: of the node.
        runner: of the policy.
        output: carries motions; not used in a dry run.
        record: of the runs.
        outcome: judges the task's predicate.
    """

    def __init__(
        self,
        node: Any,
        config: PolicyServerConfig,
        runner: PolicyRunner,
        output: CommandOutput,
        record: RunRecord,
        outcome: LiveOutcome,
    ) -> None:
        self.node, self.config, self.runner = node, config, runner
        self.output, self.record, self.outcome = output, record, outcome
        self.gripper: GripperCommander | StreamedGripper | None = None
        self.health = PolicyHealth()
        self.before_tick: list[Callable[[int], None]] = []
        """Called with the time of each tick, ns, before it."""
        self.after_run: list[Callable[[str], None]] = []
        """Called with the reason once a run has ended."""
        self._timer: Any = None
        self._last_tick_ns = -1
        self._last_motion: Motion | None = None
        self._clock_watch, self._still_watch = ClockWatch(), StillWatch()
        self._read_s = 0.0
        """When the clock was read last, on the steady one."""

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self.runner.phase == "running"

    def use_gripper(
        self, robot: Robot, on_message: OnMessage
    ) -> GripperCommander | StreamedGripper:
        """Send the gripper's commands too, by what is returned."""
        self.gripper = make_gripper(
            self.node,
            robot,
            self.output,
            self.config.lock_step,
            self.send,
            self.fail,
            on_message,
        )
        return self.gripper

    # ---------------------------------------------------------------- beginning and ending

    def start_problem(self) -> str:
        """Return what keeps a run from beginning now; empty if nothing does."""
        if self.is_running:
            return "already running; call ~/stop first"
        if self._is_simulated and not self.config.lock_step and not self._now_ns():
            return "no time has come on /clock"
        fault = self.runner.faults.problem(time.monotonic())
        if fault is not None:
            return fault.reason
        return self.command_problem()

    def command_problem(self) -> str:
        """Return what keeps commands from reaching the robot now; empty if nothing does."""
        if self.config.dry_run:
            return ""
        gripper = "" if self.gripper is None else self.gripper.problem()
        return self.output.problem() or gripper

    def start(self) -> None:
        """Begin a run; it waits for a full observation that is younger than this call."""
        # Lock step needs no age: a stamp that was answered already is never answered again.
        now_ns = 0 if self.config.lock_step else self._now_ns()
        due = self._due(now_ns)
        self.runner.start(now_ns, **due)
        run = self.runner.input.run
        self.node.black_box.event("start", not_before_ns=now_ns, run=run, **due)
        self._last_motion = None
        self.record.begin()
        self.node.show(OK, "running")
        if self.config.lock_step:
            self._tick_if_aligned()

    def summary(self) -> str:
        """Return the present run as JSON."""
        runner = self.runner
        return json.dumps(
            {
                "phase": runner.phase,
                "reason": runner.reason,
                "periods": runner.num_periods,
                "interventions": dict(runner.gate.counts),
                "held": dict(runner.held),
                "out_of_range": dict(runner.input.range.counts),
            }
        )

    def halt(self, reason: str, phase: Any = "holding") -> None:
        """Stop the policy; the last word on the wire brings the robot to rest."""
        runner, now_ns = self.runner, self._now_ns()
        was_running = self.is_running
        names = runner.gate.joint_names
        braking = runner.stop(reason, phase, None if self.config.lock_step else now_ns)
        self._last_motion = None
        if self.gripper is not None:
            self.gripper.forget()
        if not was_running:
            return
        if len(braking.points) and not self.config.lock_step:
            epoch, number = runner.gate.epoch, runner.sequence
            curve = runner.lay(braking, now_ns)
            self._publish(Motion(epoch, number, now_ns, names, braking.points, curve))
        self._end_run()

    def fail(self, reason: str) -> None:
        """Stop because the robot's controller, its gripper or this node does not do its part."""
        self.node.get_logger().error(reason)
        self.halt(reason, "stopped")
        self.node.show(ERROR, reason)

    def _end_run(self) -> None:
        """Tell everybody that the run has ended; what one of them raises is logged."""
        for call in (self._write_down, *self.after_run):
            guarded(self.node, "after a run", call)(self.runner.reason)

    def _write_down(self, reason: str) -> None:
        runner = self.runner
        if self.config.judge and self.outcome.verdict is not None:
            self.record.mark(self.outcome.verdict, "predicate")
        self.record.end(reason, runner.num_periods, runner.gate.counts, runner.held)
        self.outcome.forget()

    # ---------------------------------------------------------------- what drives it

    def begin_ticks(self) -> None:
        """Tick from now on: once a control period or, in lock step, as inputs come.

        A timer on a wall clock that is set back would be silent for so long.
        """
        self.begin_time()
        self._clock_watch.begin()
        if not self.config.lock_step:
            clock = None if self._is_simulated else Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = self.node.create_timer(self.runner.period_s, self.on_timer, clock=clock)

    def end_ticks(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self.node.destroy_timer(self._timer)
            self._timer = None

    def _due(self, now_ns: int) -> dict[str, int]:
        """Return when the next tick is due, as `tick_ns`; nothing where no timer says it."""
        until_ns = None if self._timer is None else self._timer.time_until_next_call()
        return {} if until_ns is None else {"tick_ns": now_ns + until_ns}

    def on_input(self) -> None:
        """An input was stored: in lock step it may be the one that was waited for."""
        self.health.note_input()
        if not self.config.lock_step:
            return
        if self.runner.buffer.aligned_ns() == self._last_tick_ns:
            self._repeat_last()
        self._tick_if_aligned()

    def on_fault_input(self) -> None:
        """Do not wait for the next tick where the operator lets go."""
        if not self.is_running or self.config.lock_step:
            return
        if self.runner.faults.problem(time.monotonic()) is not None:
            self._tick(self._now_ns())

    def on_timer(self) -> None:
        """A control period begins."""
        now_ns = self._now_ns()
        since_s = (now_ns - self._last_tick_ns) / messages.NANOSECONDS
        is_double = 0.0 <= since_s < SHORTEST_PERIOD * self.runner.period_s
        # A clock that jumped back makes every tick early; `_tick` has to see it.
        is_early = since_s >= 0.0 and self.runner.is_early(now_ns)
        if is_double or is_early:
            return  # simulated time comes in bursts, and a timer makes up for what it missed
        self.health.note_tick(self.runner)
        self._tick(now_ns)

    def on_second(self) -> None:
        """Watch what changes slowly."""
        if self.gripper is not None:
            self.gripper.check_deadline()
        if not self.is_running:
            return
        problem = "" if self.config.dry_run else self.output.problem()
        if problem:
            self.fail(problem)
        elif self._clock_stands():
            self.node.show(WARN, "no time comes on /clock: the run goes on once it does")

    def _clock_stands(self) -> bool:
        """Whether ticks wait for simulated time that has stood still for long."""
        waits = self._is_simulated and not self.config.lock_step
        return waits and self._still_watch.stands(self._now_ns())

    def on_jump_back(self) -> None:
        """Forget inputs of a time that is yet to come, e.g. after the simulator was restarted."""
        num_clocks = self.node.count_publishers("/clock")
        remedy = (
            f"; {num_clocks} nodes publish /clock: give each simulation its own ROS_DOMAIN_ID"
            if num_clocks > 1
            else ""
        )
        self.node.get_logger().warning(
            f"the clock jumped back; inputs are forgotten{remedy}", throttle_duration_sec=1.0
        )
        self.node.forget_inputs()
        self.begin_time()
        if self.config.lock_step:
            return
        was_running = self.is_running
        self.output.stand()
        self.runner.jump_back()
        if was_running:
            self._end_run()
            self.node.show(ERROR, self.runner.reason)

    @property
    def _is_simulated(self) -> bool:
        """Whether time is simulated: it goes on at a pace of its own."""
        return bool(self.node.get_clock().ros_time_is_active)

    def _now_ns(self) -> int:
        """Return the time of the clock, having looked whether somebody set it."""
        self._watch_clock()
        now_ns = int(self.node.get_clock().now().nanoseconds)
        self._read_s = time.monotonic()
        return now_ns

    def _watch_clock(self) -> None:
        """End the run if the wall clock was set since this was last called.

        The robot goes on along what was sent meanwhile, so that it can be brought to rest from
        where it is.
        """
        if self.config.lock_step or self._is_simulated:
            return
        set_ns = self._clock_watch.set_ns(self.node.get_clock())
        if not set_ns:
            return
        reason = f"the clock was set by {set_ns / messages.NANOSECONDS:+.3f} s"
        self.node.get_logger().warning(f"{reason}; inputs are forgotten")
        self.runner.course.shift(set_ns)
        self.node.forget_inputs()
        self.begin_time()
        if self.is_running:
            self.halt(reason, "stopped")
            self.node.show(ERROR, reason)

    def begin_time(self) -> None:
        """Let any stamp be newer than the last tick's."""
        self._last_tick_ns = -1

    # ---------------------------------------------------------------- ticks

    def _tick_if_aligned(self) -> None:
        """Lock step: tick once on each new stamp that all inputs share."""
        stamp_ns = self.runner.buffer.aligned_ns()
        if self.is_running and stamp_ns is not None and stamp_ns > self._last_tick_ns:
            self._tick(stamp_ns)

    def _tick(self, now_ns: int) -> None:
        runner = self.runner
        if now_ns < self._last_tick_ns and self._is_simulated:
            self.on_jump_back()
        self._last_tick_ns = now_ns
        for call in self.before_tick:
            call(now_ns)
        self.node.black_box.tick(now_ns)  # after what was called, which may give inputs
        was_at_rest, was_running = runner.gate.is_at_rest, self.is_running
        answer = runner.tick(now_ns, time.monotonic())
        if isinstance(answer, Command):
            self._command(answer)
            self._judge()
        else:
            self._hold(answer, was_at_rest)
        if was_running and not self.is_running and isinstance(answer, Hold):
            self._end_run()

    def _command(self, command: Command) -> None:
        if command.interventions:
            first = command.interventions[0]
            self.node.show(WARN, f"running; {first.kind} limited", "limited")
        elif self.runner.decider.is_late:
            num = self.runner.held["late"]
            self.node.show(WARN, f"running; inference is late, {num} periods so far", "late")
        elif self.runner.input.outside:
            fields = ", ".join(self.runner.input.outside)
            self.node.show(WARN, f"running; outside what training saw: {fields}")
        else:
            self.node.show(OK, "running")
        for found in command.interventions:
            self.node.report(found.kind, found.reason)
        if command.is_new_chunk:
            self.node.show_chunk(command)
        if command.gripper is None or self.gripper is None:
            self.send(command)
        else:
            self.gripper.submit(command)

    def _hold(self, hold: Hold, was_at_rest: bool) -> None:
        if len(hold.points) and (self.config.lock_step or not was_at_rest):
            self._publish(hold)
        if hold.kind in QUIET:
            self.node.show(OK, hold.kind if hold.kind == "holding" else hold.reason)
        elif hold.kind in FAULTS:
            self.node.show(ERROR, hold.reason, fault=hold.kind)
        elif self.runner.is_placed:
            level = STALE if hold.kind == "stale" else WARN
            self.node.show(level, f"{hold.kind}: {hold.reason}", hold.kind)
        else:
            what = "to begin" if hold.kind == "moving" else "for inputs"
            self.node.show(OK, f"waiting {what}: {hold.reason}", "waiting")

    def _judge(self) -> None:
        """End the run where the task's predicate holds on what is observed."""
        reading = self.runner.reading
        if not self.config.judge or reading is None:
            return
        if self.outcome.judge(reading.scene, reading.newest_ns):
            self.halt("the outcome is verified", "finished")
            self.node.show(OK, "the outcome is verified")

    # ---------------------------------------------------------------- output

    def send(self, command: Command) -> None:
        """Send a command's motion unless something was stopped or held meanwhile."""
        if self.runner.may_send(command):
            self._publish(command)
            self.health.note_command()

    def _publish(self, motion: Motion) -> None:
        self._last_motion = motion
        if not self.config.dry_run:
            self.output.send(motion, self._read_s)

    def _repeat_last(self) -> None:
        """Lock step: the same observation again means that its command was lost."""
        motion = self._last_motion
        if isinstance(motion, Command) and self.runner.may_send(motion):
            self._publish(motion)
