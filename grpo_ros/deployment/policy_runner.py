"""Policy runner: one tick from inputs to a command that has passed the safety gate.

It combines the observation buffer, the observation assembler, the policy, the chunk executor and
the safety gate. Given the same inputs at the same times it gives the same commands.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from grpo_ros import typed
from grpo_ros.contract import Contract, JointLimits
from grpo_ros.deployment.chunk_executor import ChunkExecutor, Controller, check_chunk
from grpo_ros.deployment.latency import LatencyWindow
from grpo_ros.deployment.observation_buffer import (
    NANOSECONDS,
    NotReady,
    ObservationBuffer,
    Reading,
)
from grpo_ros.deployment.safety_gate import Intervention, SafetyGate
from grpo_ros.errors import ContractError, GrpoRosError
from grpo_ros.observations import ObservationAssembler
from grpo_ros.policies.features import field_shape
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]
Infer = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.floating]]
"""Observation field -> (1, *shape) in; a chunk (1, K, A) out."""
Phase = Literal["holding", "running", "finished", "stopped"]


@dataclasses.dataclass(frozen=True)
class RunnerConfig:
    """Settings of a policy runner."""

    max_age_s: float = typed.setting(
        0.0, "Oldest usable observation; 0: what the contract says", unit="s", minimum=0.0
    )
    stop_after_s: float = typed.setting(
        0.5, "Hold for so long without a usable observation, then stop", unit="s", minimum=0.0
    )
    max_failures: int = typed.setting(
        3, "Inferences in a row that may fail before the policy is stopped", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class GripperTarget:
    """Where the gripper's driver joint goes, in m, with at most how many N."""

    position: float
    max_effort: float


@dataclasses.dataclass(frozen=True)
class Command:
    """What may be sent now.

    Attributes:
        epoch, sequence: identity; see `PolicyRunner.may_send`.
        stamp_ns: the tick it answers; point r is due at stamp_ns + (r + 1) control periods.
        joint_names: of the columns of `points`.
        points: (R, J) float64, all targets still to come; R >= 1.
        gripper: set only when the gripper's command changes.
        interventions: what the gate changed.
    """

    epoch: int
    sequence: int
    stamp_ns: int
    joint_names: tuple[str, ...]
    points: Array
    gripper: GripperTarget | None = None
    interventions: tuple[Intervention, ...] = ()


@dataclasses.dataclass(frozen=True)
class Hold:
    """Why the policy commands nothing, and the targets that bring the joints to rest.

    Attributes:
        kind: holding, missing, stale, skewed, future, inference, finished or stopped.
        points: (R, J) float64, R may be 0: nothing to send.
    """

    kind: str
    reason: str
    epoch: int
    sequence: int
    stamp_ns: int
    joint_names: tuple[str, ...]
    points: Array


class PolicyRunner:
    """Runs one policy on one robot, tick by tick.

    Args:
        contract: of the policy.
        infer: the policy.
        robot: already matched with the contract.
        controller: of the contract and the robot.
        config: ages and patience.

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
    ) -> None:
        _check_served(contract)
        self.contract, self.infer, self.robot = contract, infer, robot
        self.config = config or RunnerConfig()
        self.buffer = ObservationBuffer(contract, robot)
        self.assemble = ObservationAssembler(contract, robot)
        self.executor = ChunkExecutor(contract, controller)
        self._columns = [contract.joint_names.index(name) for name in robot.arm_joints]
        arm_limits = [contract.limits[column] for column in self._columns]
        self.gate = SafetyGate(arm_limits, contract.period_s)
        self.gripper_limit = self._find_gripper_limit()
        self.phase: Phase = "holding"
        self.reason = "not started"
        self.sequence = 0
        self.num_periods = 0
        self.held: Counter[str] = Counter()
        self.observation_age, self.inference = LatencyWindow(), LatencyWindow()
        self._gripper: float | None = None
        self._is_placed = False
        self._waiting_since_ns: int | None = None
        self._num_failures = 0

    # ---------------------------------------------------------------- start and stop

    def warm_up(self) -> None:
        """Infer once from zeros, so that a policy that cannot run is found before it has to.

        Raises:
            PolicyFileError: the chunk has another shape than the contract says, or is not finite.
        """
        zeros = {
            field.name: np.zeros((1, *field_shape(field)), dtype=field.dtype)
            for field in self.contract.observation
        }
        check_chunk(self.infer(zeros), self.contract)

    def start(self, not_before_ns: int = 0) -> None:
        """Begin an episode.

        Args:
            not_before_ns: older inputs do not count, those that have arrived included.
        """
        self.gate.close()
        self.gate.counts.clear()
        self.held.clear()
        self.buffer.forget_before(not_before_ns)
        self.executor.abandon()
        self.phase, self.reason = "running", "running"
        self.num_periods, self._num_failures = 0, 0
        self._gripper, self._is_placed, self._waiting_since_ns = None, False, None

    def stop(self, reason: str = "stopped on request", phase: Phase = "stopped") -> Array:
        """End the episode; return targets (R, J) that bring the arm to rest, R may be 0.

        Nothing made before this call may be sent after it.
        """
        points = self.gate.hold()
        self.gate.close()
        self.phase, self.reason = phase, reason
        return points

    @property
    def is_placed(self) -> bool:
        """Whether the episode's first usable observation has come."""
        return self._is_placed

    def may_send(self, command: Command) -> bool:
        """Whether a command may still go to the wire: nothing was stopped or held since."""
        return self.gate.admits(command.epoch) and command.sequence == self.sequence

    # ---------------------------------------------------------------- tick

    def tick(self, now_ns: int) -> Command | Hold:
        """Return what to send at this control period.

        Args:
            now_ns: the clock of the inputs' stamps.
        """
        self.sequence += 1
        if self.phase != "running":
            return self._hold(self.phase, self.reason, now_ns, self.gate.hold())
        reading = self.buffer.read(now_ns, self.config.max_age_s or None)
        if isinstance(reading, NotReady):
            return self._wait(reading, now_ns)
        self._waiting_since_ns = None
        self.observation_age.add(reading.age_s)
        if not self._is_placed:
            self._place(reading)
        if self.num_periods >= self.contract.horizon:
            points = self.stop(f"horizon of {self.contract.horizon} periods reached", "finished")
            return self._hold("finished", self.reason, now_ns, points)
        if self.executor.needs_inference:
            problem = self._decide(reading)
            if problem is not None:
                return self._fail(problem, now_ns)
        return self._execute(now_ns)

    def _place(self, reading: Reading) -> None:
        """Take the measured as the commanded position."""
        measured = reading.scene.joints(self.contract.joint_names)
        self.executor.start(measured)
        self.gate.open(measured[0, self._columns].numpy())
        self._is_placed = True

    def _decide(self, reading: Reading) -> str | None:
        """Infer a chunk; return what went wrong."""
        started = time.perf_counter()
        try:
            obs = self.assemble(reading.scene, self.executor.state, self.executor.last_action)
            with torch.no_grad():
                self.executor.load(self.infer({name: v.numpy() for name, v in obs.items()}))
        except (GrpoRosError, ValueError, RuntimeError, KeyError) as problem:
            return f"{type(problem).__name__}: {problem}"
        self.inference.add(time.perf_counter() - started)
        self._num_failures = 0
        return None

    def _execute(self, now_ns: int) -> Command:
        targets = self.executor.remaining_targets()[:, self._columns]
        gated = self.gate.admit(self.robot.arm_joints, targets)
        gripper, refused = self._gripper_target()
        self.executor.advance()
        self.num_periods += 1
        return Command(
            self.gate.epoch,
            self.sequence,
            now_ns,
            self.gate.joint_names,
            gated.points,
            gripper,
            gated.interventions + refused,
        )

    def _gripper_target(self) -> tuple[GripperTarget | None, tuple[Intervention, ...]]:
        """Return the gripper's command where it changes with the next step."""
        gripper = self.robot.gripper
        if gripper is None or self.gripper_limit is None:
            return None, ()
        opening = float(self.executor.remaining_states()[0]["gripper"][0, 0])
        if opening == self._gripper:
            return None, ()
        span = gripper.open_position_m - gripper.closed_position_m
        target = GripperTarget(gripper.closed_position_m + opening * span, gripper.max_effort_n)
        may_pass, refused = self.gate.admit_gripper(
            target.position, target.max_effort, self.gripper_limit
        )
        self._gripper = opening
        return (target if may_pass else None), refused

    # ---------------------------------------------------------------- holding

    def _wait(self, problem: NotReady, now_ns: int) -> Hold:
        """Hold while inputs are unusable; stop once that lasts too long."""
        if self._waiting_since_ns is None or now_ns < self._waiting_since_ns:
            self._waiting_since_ns = now_ns
        waited_s = (now_ns - self._waiting_since_ns) / NANOSECONDS
        self.held[problem.kind] += 1
        if self._is_placed and waited_s > self.config.stop_after_s:
            points = self.stop(f"{problem.kind} for {waited_s:.2f} s: {problem.reason}")
            return self._hold("stopped", self.reason, now_ns, points)
        return self._hold(problem.kind, problem.reason, now_ns, self._come_to_rest())

    def _fail(self, problem: str, now_ns: int) -> Hold:
        self.held["inference"] += 1
        self._num_failures += 1
        if self._num_failures >= self.config.max_failures:
            points = self.stop(f"{self._num_failures} inferences in a row failed: {problem}")
            return self._hold("stopped", self.reason, now_ns, points)
        return self._hold("inference", problem, now_ns, self._come_to_rest())

    def _come_to_rest(self) -> Array:
        """Brake, and let the controller go on from where the joints come to rest."""
        points = self.gate.hold()
        if not self._is_placed:
            return points
        commanded = self.executor.state["target"].clone()
        commanded[0, self._columns] = torch.from_numpy(self.gate.position)
        self.executor.rebase(commanded)
        return points

    def _hold(self, kind: str, reason: str, now_ns: int, points: Array) -> Hold:
        return Hold(
            kind, reason, self.gate.epoch, self.sequence, now_ns, self.gate.joint_names, points
        )

    def _find_gripper_limit(self) -> JointLimits | None:
        gripper = self.robot.gripper
        if gripper is None or all(action.kind != "gripper" for action in self.contract.action):
            return None
        for limit in self.contract.limits:
            if limit.name == gripper.joint:
                return limit
        return None


def _check_served(contract: Contract) -> None:
    """Raise ContractError for what this version can train but not yet serve."""
    if contract.execution != "sync":
        raise ContractError(f"execution '{contract.execution}'", expected="'sync'")
    for field in contract.observation:
        if field.source.kind in ("polar", "scan"):
            raise ContractError(
                f"observation field '{field.name}' has source '{field.source.kind}'",
                expected="joints and object poses: this version serves arms",
            )
    for action in contract.action:
        if action.kind == "twist":
            raise ContractError(
                f"action '{action.name}' is a twist",
                expected="commands of an arm: this version serves no bases",
                remedy="evaluate it with grpo-ros evaluate",
            )
