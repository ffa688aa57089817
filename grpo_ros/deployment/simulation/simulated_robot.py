"""Simulated robot: one simulated environment behind a robot's interfaces, episode by episode.

What a driver does on hardware: it takes timed joint targets and gripper commands and measures
joints; beside that it knows the outcome. Its clock never goes back, whatever is reset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from grpo_ros.contract import Contract
from grpo_ros.deployment.trajectory_follower import TrajectoryFollower
from grpo_ros.randomness import Key
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.base import EnvIds, Observation, StepResult
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState

Array = npt.NDArray[np.float64]
NANOSECONDS = 1_000_000_000
Phase = Literal["idle", "running", "finished", "failed"]


@runtime_checkable
class TargetSimulator(Protocol):
    """A simulator that can be driven by joint targets; see MujocoSimulator."""

    task: Task
    contract: Contract
    num_envs: int
    num_substeps: int

    def reset(
        self, initial: SceneState, env_ids: EnvIds = None, keys: Sequence[Key] | None = None
    ) -> Observation:
        """Start episodes."""

    def step_targets(self, targets: Tensor) -> StepResult:
        """One control period towards joint targets (N, J) float64."""

    def step_substep(self, targets: Tensor) -> None:
        """One physics step at instantaneous joint targets (N, J) float64."""

    def check_outcome(self) -> StepResult:
        """Count one control period and latch its outcome."""

    def scene(self) -> SceneState:
        """Return the current scene."""

    def set_scene(self, scene: SceneState, env_ids: EnvIds = None) -> None:
        """Put joints and bodies into the state that a scene gives."""

    def take_over(self, other: Any, poses: Mapping[str, Tensor]) -> None:
        """Go on where another simulator of the same kind stood."""

    def controller_state(self) -> Mapping[str, Tensor]:
        """Return what is commanded."""

    def close(self) -> None:
        """Stop."""


@dataclasses.dataclass(frozen=True)
class EpisodeResult:
    """How an episode went.

    Attributes:
        episode: its number. key: of its initial state.
        success: the outcome was verified. score: in [0, 1].
        steps: control periods. terminated: the task ended it, not the time limit.
        error: why it does not count; empty if it does.
    """

    episode: int
    key: tuple[int, ...]
    success: bool
    score: float
    steps: int
    terminated: bool
    error: str = ""


class SimulatedRobot:
    """Runs one environment for a robot's commands.

    Args:
        simulator: with one environment.
        key_of: episode number -> key of its initial state.
        first_episode: number of the first.
    """

    def __init__(
        self,
        simulator: TargetSimulator,
        key_of: Callable[[int], Key],
        first_episode: int,
    ) -> None:
        self.simulator, self.key_of = simulator, key_of
        self.robot: Robot = simulator.task.robot
        self.period_ns = round(simulator.contract.period_s * NANOSECONDS)
        self.substep_ns = self.period_ns // simulator.num_substeps
        self.time_ns = NANOSECONDS  # stamp 0 means "now" in trajectories, so time begins later
        self.phase: Phase = "idle"
        self.next_episode = first_episode
        self.episode = first_episode
        self.num_steps = 0
        self.result: EpisodeResult | None = None
        self.scene: SceneState
        self._next_check_ns = 0
        self._place(self.episode)

    # ---------------------------------------------------------------- episodes

    def begin_next(self) -> int:
        """Reset to the next initial state and begin its episode; return its number."""
        self.episode = self.next_episode
        self.next_episode += 1
        self.time_ns += self.period_ns  # a stamp never stands for two states
        self._place(self.episode)
        self.phase, self.result, self.num_steps = "running", None, 0
        self._next_check_ns = self.time_ns + self.period_ns
        return self.episode

    def repeat(self) -> None:
        """Let the next `begin_next` run the present episode again."""
        self.next_episode = self.episode

    def fail(self, error: str) -> EpisodeResult:
        """End the episode without a valid outcome."""
        self.phase = "failed"
        self.result = self._result(False, 0.0, False, error)
        return self.result

    # ---------------------------------------------------------------- commands

    @property
    def arm_joints(self) -> tuple[str, ...]:
        """Names of the arm's joints, in the order of arm targets."""
        return self.robot.arm_joints

    def command_gripper(self, position: float) -> None:
        """Send the gripper's driver joint towards a position, m; its target steps at once."""
        self.gripper_target = position

    def follow(self, start_ns: int, times_ns: Sequence[int], points: Array) -> bool:
        """Follow arm targets (R, A) due at start + times; start 0 means now."""
        start = start_ns or self.time_ns
        return self._arm.follow(self.time_ns, [start + t for t in times_ns], points)

    def hold_arm(self) -> None:
        """Hold the arm's present target."""
        self._arm.reset(self._arm.sample(self.time_ns))

    # ---------------------------------------------------------------- scene

    def place_body(self, name: str, pose: Tensor, velocity: Tensor | None) -> None:
        """Put a body at a pose (7,) with a velocity (6,), where physics moves it; at once."""
        nothing = torch.zeros(1, 0, dtype=torch.float64)
        velocities = {} if velocity is None else {name: velocity.unsqueeze(0)}
        self.simulator.set_scene(
            SceneState((), nothing, nothing, {name: pose.unsqueeze(0)}, velocities)
        )
        self.scene = self.simulator.scene()

    def go_on_with(self, simulator: TargetSimulator) -> None:
        """Use another simulator, which stands where the present one stood."""
        self.simulator = simulator
        self.scene = simulator.scene()

    # ---------------------------------------------------------------- time

    def step_period(self, arm_target: Array) -> None:
        """Lock step: one control period towards an arm target (A,) and the gripper's."""
        result = self.simulator.step_targets(self._targets(arm_target))
        self.time_ns += self.period_ns
        self._arm.reset(arm_target)
        self.scene = self.simulator.scene()
        self._count(result)

    def step_substep(self) -> None:
        """Free running: one physics step along what is followed."""
        self.time_ns += self.substep_ns
        if self.phase == "finished":  # a simulator freezes what is finished
            return
        self.simulator.step_substep(self._targets(self._arm.sample(self.time_ns)))
        if self.phase == "running" and self.time_ns >= self._next_check_ns:
            self._next_check_ns += self.period_ns
            self._count(self.simulator.check_outcome())
        self.scene = self.simulator.scene()

    def is_arm_done(self) -> bool:
        """Whether the last arm target is due."""
        return self._arm.is_done(self.time_ns)

    @property
    def gripper_position(self) -> float:
        """Measured position of the gripper's driver joint, m; 0 without a gripper."""
        gripper = self.robot.gripper
        return 0.0 if gripper is None else float(self.scene.joints([gripper.joint])[0, 0])

    @property
    def gripper_speed(self) -> float:
        """Measured speed of the gripper's driver joint, m/s; 0 without a gripper."""
        if self.robot.gripper is None:
            return 0.0
        column = self.scene.joint_columns([self.robot.gripper.joint])
        return float(self.scene.joint_velocity[0, column[0]].abs())

    # ---------------------------------------------------------------- inside

    def _targets(self, arm: Array) -> Tensor:
        """Return the targets (1, J) of all commanded joints: the arm's, then the gripper's."""
        targets = np.append(arm, self.gripper_target)[: len(self.robot.joint_names)]
        return torch.from_numpy(targets).unsqueeze(0)

    def _place(self, episode: int) -> None:
        key = self.key_of(episode)
        self.simulator.reset(self.simulator.task.sample([key]), None, [key])
        self.scene = self.simulator.scene()
        arm = self.scene.joints(self.robot.arm_joints)[0].numpy()
        self._arm = TrajectoryFollower(arm)
        # What the gripper is told at the start is not where it is, when it holds something.
        commanded = self.simulator.controller_state()["target"][0, len(arm) :]
        self.gripper_target = float(commanded[0]) if len(commanded) else 0.0

    def _count(self, result: StepResult) -> None:
        if self.phase != "running":
            return
        self.num_steps += 1
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        if terminated or truncated:
            self.phase = "finished"
            self.result = self._result(
                bool(result.outcome[0]), float(result.score[0]), terminated, ""
            )

    def _result(self, success: bool, score: float, terminated: bool, error: str) -> EpisodeResult:
        key = tuple(self.key_of(self.episode))
        return EpisodeResult(self.episode, key, success, score, self.num_steps, terminated, error)
