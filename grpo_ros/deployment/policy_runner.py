"""Policy runner: one tick from inputs to a command that has passed the safety gate.

It combines the observation buffer, the observation assembler, inference, the chunk executor, the
fault watch and the safety gate. Given the same inputs at the same times, and inference in line,
it gives the same commands.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import torch

from grpo_ros.contract import Contract
from grpo_ros.deployment.answers import Command, Hold, Phase
from grpo_ros.deployment.chunk_executor import ChunkExecutor, Controller, check_chunk
from grpo_ros.deployment.decider import Decider
from grpo_ros.deployment.gripper_targets import GripperTargets
from grpo_ros.deployment.inference import Infer, Inference, InlineInference
from grpo_ros.deployment.inputs.observation_buffer import (
    NANOSECONDS,
    NotReady,
    ObservationBuffer,
    Reading,
)
from grpo_ros.deployment.measurements import MeasurementWindow
from grpo_ros.deployment.policy_input import PolicyInput
from grpo_ros.deployment.runner_config import RunnerConfig
from grpo_ros.deployment.safety.course import Course, TwistCourse
from grpo_ros.deployment.safety.curve import Curve
from grpo_ros.deployment.safety.faults import FaultWatch
from grpo_ros.deployment.safety.policy_gate import make_gate
from grpo_ros.deployment.safety.standing import standing_problem
from grpo_ros.deployment.safety.stream_gate import Gated
from grpo_ros.deployment.safety.twist_gate import TwistGate
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]


class PolicyRunner:
    """Runs one policy on one robot, tick by tick.

    Args:
        contract: of the policy.
        infer: the policy.
        robot: already matched with the contract.
        controller: of the contract and the robot.
        config: speed, ages and patience.
        inference: runs the policy; None: in line.

    Raises:
        ContractError: the contract asks for something that this version does not carry out.
    """

    def __init__(
        self,
        contract: Contract,
        infer: Infer,
        robot: Robot,
        controller: Controller,
        config: RunnerConfig | None = None,
        inference: Inference | None = None,
    ) -> None:
        self.contract, self.robot = contract, robot
        self.config = config or RunnerConfig()
        self.infer = infer
        self.inference: Inference = inference or InlineInference(infer)
        self.period_s = contract.period_s / self.config.speed
        self.buffer = ObservationBuffer(contract, robot, self.config.extrapolates)
        self.input = PolicyInput(contract, robot, self.config.speed, self.config.range_margin)
        self.executor = ChunkExecutor(contract, controller, self.config.execution)
        patience_s = self.config.patience * self.period_s
        self.decider = Decider(self.executor, self.inference, self.input, patience_s)
        self._columns = [contract.joint_names.index(name) for name in robot.arm_joints]
        self.is_base = any(action.kind == "twist" for action in contract.action)
        self.gate = make_gate(
            contract,
            robot,
            self.period_s,
            self.config.position_margin,
            self.config.tip_speed_m_s,
            self.config.speed,
        )
        self.course = (TwistCourse if self.is_base else Course)(self.period_s)
        self.faults = FaultWatch(robot, self.config.faults)
        self.gripper = GripperTargets(contract, robot)
        self.phase: Phase = "holding"
        self.reason = "not started"
        self.sequence = 0
        self.num_periods = 0
        self.held: Counter[str] = Counter()
        self.observation_age = MeasurementWindow()
        self.seam_position, self.seam_velocity = MeasurementWindow(), MeasurementWindow()
        self.reading: Reading | None = None
        """What the last tick of this run observed."""
        self.is_placed = False
        """Whether the run has begun, with its first usable observation."""
        self._forget()

    def _forget(self) -> None:
        self.gripper.forget()
        self.reading = None
        self.is_placed = self._is_off_plan = False
        self._waiting_since_ns: int | None = None
        self.decider.forget()

    # ---------------------------------------------------------------- start and stop

    def warm_up(self) -> None:
        """Infer once from zeros, so that a policy that cannot run is found before it has to.

        Raises:
            PolicyFileError: the chunk has another shape than the contract says, or is not finite.
        """
        check_chunk(self.infer(self.input.zeros()), self.contract)

    def start(self, not_before_ns: int = 0, tick_ns: int | None = None) -> None:
        """Begin an episode.

        Args:
            not_before_ns: older inputs do not count, those that have arrived included. 0, in lock
                step: all count, and the arm was put where it is.
            tick_ns: when a tick is due, and others whole periods later; None: when the first
                comes.
        """
        if not_before_ns == 0:
            self.course.clear()
        self.course.tick_ns = tick_ns
        self.gate.close()
        self.gate.counts.clear()
        self.held.clear()
        self.input.begin_run()
        self.buffer.forget_before(not_before_ns)
        self.executor.abandon()
        self.faults.forget()
        self._forget()
        self.phase, self.reason = "running", "running"
        self.num_periods = 0

    def stop(
        self,
        reason: str = "stopped on request",
        phase: Phase = "stopped",
        now_ns: int | None = None,
    ) -> Gated:
        """End the episode; return the motion that brings the robot to rest, which may be none.

        Nothing made before this call may be sent after it.

        Args:
            reason: in words. phase: the one that follows.
            now_ns: from when on; None, in lock step: the next period.
        """
        if now_ns is not None:
            self._catch_up(now_ns)
        braking = self.gate.hold() if now_ns is None else self._brake(now_ns)
        self.gate.close()
        self.inference.forget()
        self.phase, self.reason = phase, reason
        return braking

    def jump_back(self) -> None:
        """End the run after the clock jumped back: where the arm is by now, nobody knows."""
        if self.phase == "running":
            self.stop("the clock jumped back")
        self.course.clear()

    def lay(self, gated: Gated, now_ns: int) -> Curve | None:
        """Return the motion that the gate let through, from now on.

        It goes on exactly where the one before leads, however early or late the tick is.
        """
        if gated.curve is None:
            return None
        curve = self.course.lay(gated.curve, now_ns)
        if not self.is_base:
            self.faults.put_curve(now_ns, curve)
        return curve

    def is_early(self, now_ns: int) -> bool:
        """Whether a tick would be one too many: the present period has its motion already."""
        return self.phase == "running" and self.course.is_early(now_ns)

    def _catch_up(self, now_ns: int) -> None:
        """Let the periods pass in which no tick came: the robot went on along what was sent."""
        if not self.is_placed or not self.gate.is_open:
            return
        for _ in range(self.course.num_missed(now_ns)):
            if self.gate.is_at_rest:
                self.course.clear()
                return
            self.gate.coast()
            self.course.pass_by()
            if self.executor.has_next:
                self.executor.advance()
            else:
                self.executor.pass_by()
                self._is_off_plan = True

    def _brake(self, now_ns: int) -> Gated:
        """Come to rest from what the robot does now."""
        if isinstance(self.gate, TwistGate) and self.gate.is_open:
            twist = self.course.velocity(now_ns)
            if twist is not None:
                self.gate.meet(twist)
        return self.gate.hold()

    def may_send(self, motion: Command | Hold) -> bool:
        """Whether a motion may still go to the wire: nothing was stopped or held since."""
        return self.gate.admits(motion.epoch) and motion.sequence == self.sequence

    # ---------------------------------------------------------------- tick

    def tick(self, now_ns: int, steady_s: float | None = None) -> Command | Hold:
        """Return what to send at this control period.

        Args:
            now_ns: the clock of the inputs' stamps.
            steady_s: a clock that never stands still or jumps; None: the stamps' clock is one.
        """
        self.sequence += 1
        self._catch_up(now_ns)
        if self.phase != "running":
            return self._hold(self.phase, self.reason, now_ns, self.gate.hold())
        fault = self.faults.problem(now_ns / NANOSECONDS if steady_s is None else steady_s)
        if fault is not None:
            return self._stop(fault.kind, fault.reason, now_ns)
        arrivals_s = steady_s if self.config.watch_arrivals else None
        reading = self.buffer.read(now_ns, self.config.max_age_s or None, arrivals_s)
        self.reading = None if isinstance(reading, NotReady) else reading
        if not self.is_placed and isinstance(reading, Reading):
            reading = self._start_problem(reading, now_ns) or reading
        if isinstance(reading, NotReady):
            return self._wait(reading, now_ns)
        self._waiting_since_ns = None
        self.observation_age.add(reading.age_s)
        if not self.is_placed or (self.config.follow_measured and self.decider.is_idle):
            self._place()
        measured = reading.scene.joints(self.robot.arm_joints)[0].numpy()
        if not self.is_base:
            fault = self.faults.judge_tracking(reading.scene_ns, measured)
            if fault is not None:
                return self._stop(fault.kind, fault.reason, now_ns)
        if self.num_periods >= self.contract.horizon:
            reason = f"horizon of {self.contract.horizon} periods reached"
            braking = self.stop(reason, "finished", now_ns)
            return self._hold("finished", self.reason, now_ns, braking)
        return self._decide_and_act(reading, now_ns)

    def _start_problem(self, reading: Reading, now_ns: int) -> NotReady | None:
        """Return why the robot may not be commanded from where it is; None if it may."""
        if not self.course.has_ended(now_ns):
            return NotReady("moving", "the robot still comes to rest from the run before")
        if self.is_base or self.config.follow_measured:
            return None
        joints, limits = self.robot.arm_joints, [self.contract.limits[i] for i in self._columns]
        velocity = reading.scene.joint_velocity[0, reading.scene.joint_columns(joints)].numpy()
        reason = standing_problem(limits, self.buffer.position(joints), velocity)
        return NotReady("moving", reason) if reason else None

    def _place(self) -> None:
        """Take the measured as the commanded position."""
        measured = torch.from_numpy(self.buffer.position(self.contract.joint_names)).unsqueeze(0)
        self.executor.start(measured)
        self.gate.open(measured[0, self._columns].numpy())
        self.course.clear()
        self.is_placed = True

    def _decide_and_act(self, reading: Reading, now_ns: int) -> Command | Hold:
        decider = self.decider
        if self._is_off_plan and self.executor.needs_inference:
            self._go_on_from_gate()
        holds = self.config.out_of_range == "hold"
        if decider.wants_input and not decider.ask(reading, holds):
            self.held["out_of_range"] += 1
            reason = f"outside what training saw: {', '.join(self.input.outside)}"
            return self._hold("out_of_range", reason, now_ns, self._come_to_rest(now_ns))
        problem = decider.take(self._go_on_from_gate)
        if problem:
            return self._fail(problem, now_ns)
        if decider.is_late:
            self.held["late"] += 1
        if not self.executor.has_next:
            return self._be_late(now_ns)
        return self._execute(now_ns)

    def _execute(self, now_ns: int) -> Command:
        is_new = self.decider.has_new
        if self.config.ramp_in_s > 0.0:
            elapsed_s = (self.num_periods + 1) * self.period_s
            self.gate.speed_share = min(1.0, elapsed_s / self.config.ramp_in_s)
        foreseen = self.gate.plan
        gated = self.gate.admit(self.gate.joint_names, self._targets())
        self._is_off_plan = self._is_off_plan or bool(gated.interventions)
        if is_new and len(foreseen):
            jump = float(np.abs(gated.points[0] - foreseen[0]).max())
            self.seam_position.add(jump)
            self.seam_velocity.add(jump / self.period_s)
        gripper, refused = self.gripper.of(self.executor.remaining()[0].state, self.gate)
        self.executor.advance()
        self.num_periods += 1
        curve = self.lay(gated, now_ns)
        return Command(
            self.gate.epoch,
            self.sequence,
            now_ns,
            self.gate.joint_names,
            gated.points,
            curve,
            gated.is_known,
            gated.num_asked,
            gripper,
            gated.interventions + refused,
            is_new,
        )

    def _targets(self) -> Array:
        """Return the joint targets (R, J), or the twists (R, 2), of the steps to come.

        In stretched time the same path takes twists that are so much smaller.
        """
        if self.is_base:
            return self.config.speed * self.executor.remaining_twists()
        return self.executor.remaining_targets()[:, self._columns]

    # ---------------------------------------------------------------- holding

    def _wait(self, problem: NotReady, now_ns: int) -> Hold:
        """Hold while inputs are unusable, or no run may begin; stop once that lasts too long."""
        if self._waiting_since_ns is None or now_ns < self._waiting_since_ns:
            self._waiting_since_ns = now_ns
        waited_s = (now_ns - self._waiting_since_ns) / NANOSECONDS
        self.held[problem.kind] += 1
        config = self.config
        if waited_s > (config.stop_after_s if self.is_placed else config.begin_timeout_s):
            return self._stop(
                "stopped", f"{problem.kind} for {waited_s:.2f} s: {problem.reason}", now_ns
            )
        return self._hold(problem.kind, problem.reason, now_ns, self._come_to_rest(now_ns))

    def _be_late(self, now_ns: int) -> Hold:
        """Go on along what was sent, which ends at rest; stop where the policy never answers."""
        waited_s = self.decider.waited_s()
        if waited_s > self.config.inference_timeout_s:
            return self._stop("stopped", f"no chunk for {waited_s:.1f} s", now_ns)
        gated = self.gate.coast()
        self._is_off_plan = True
        self.executor.pass_by()
        reason = f"inference takes longer than {self.period_s * 1e3:.0f} ms"
        return self._hold("late", reason, now_ns, gated)

    def _fail(self, problem: str, now_ns: int) -> Hold:
        self.held["inference"] += 1
        if self.decider.num_failures >= self.config.max_failures:
            reason = f"{self.decider.num_failures} inferences in a row failed: {problem}"
            return self._stop("stopped", reason, now_ns)
        return self._hold("inference", problem, now_ns, self._come_to_rest(now_ns))

    def _stop(self, kind: str, reason: str, now_ns: int) -> Hold:
        """End the run; what ended it stands until the next start."""
        if kind != "stopped":
            self.held[kind] += 1
        braking = self.stop(reason, now_ns=now_ns)
        return self._hold(kind, reason, now_ns, braking)

    def _come_to_rest(self, now_ns: int) -> Gated:
        """Brake, and let the controller go on from where the joints come to rest."""
        gated = self._brake(now_ns)
        if self.is_placed:
            self._is_off_plan = True
            self.inference.forget()
            self.executor.abandon()
        return gated

    def _go_on_from_gate(self) -> None:
        """Let the controller command what the gate let through, which may be less than asked."""
        if not self._is_off_plan or isinstance(self.gate, TwistGate):
            return
        self._is_off_plan = False
        commanded = self.executor.state["target"].clone()
        commanded[0, self._columns] = torch.from_numpy(self.gate.position)
        velocity = torch.zeros_like(commanded)
        velocity[0, self._columns] = torch.from_numpy(self.gate.velocity / self.config.speed)
        self.executor.rebase(commanded, velocity)

    def _hold(self, kind: str, reason: str, now_ns: int, gated: Gated) -> Hold:
        return Hold(
            self.gate.epoch,
            self.sequence,
            now_ns,
            self.gate.joint_names,
            gated.points,
            self.lay(gated, now_ns),
            gated.is_known,
            kind,
            reason,
        )
