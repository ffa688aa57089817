"""Simulated robot: one simulated environment behind a robot's interfaces, episode by episode.

What driver and controllers do on hardware: they take trajectories, streamed commands, a base's
velocities and gripper commands, and measure joints; beside that it knows the outcome. Its clock
never goes back, whatever is reset.
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
from grpo_ros.controllers import make_controller
from grpo_ros.deployment.simulation.arm_drive import ArmDrive
from grpo_ros.deployment.simulation.base_drive import BaseDrive
from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.gripper_drive import GripperDrive
from grpo_ros.deployment.simulation.trajectory_controller import GoalEnd
from grpo_ros.deployment.simulation.trajectory_follower import Motion
from grpo_ros.randomness import Key
from grpo_ros.robots.robot import Robot
from grpo_ros.simulators.base import EnvIds, Observation, StepResult
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.scene_state import SceneState

Array = npt.NDArray[np.float64]
NANOSECONDS = 1_000_000_000
Phase = Literal["idle", "running", "finished", "failed"]

WAIT_NS = 5 * NANOSECONDS
"""Free running, the longest that an episode waits for its first command before its time runs."""


@runtime_checkable
class TargetSimulator(Protocol):
    """A simulator that can be driven by joint targets; see MujocoSimulator."""

    task: Task
    contract: Contract
    num_envs: int
    num_substeps: int
    draws_images: bool
    """Whether its observations hold images."""

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

    def render(self, env_ids: EnvIds = None, camera: str = "overview") -> Tensor:
        """Return images (n, H, W, 3) uint8, those that observations would hold."""

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
        settings: of its controllers.

    Attributes:
        arm: what moves the arm's joints; of a base, what moves nothing.
        base: what moves a base; None for an arm.
        gripper: what watches the gripper.
    """

    def __init__(
        self,
        simulator: TargetSimulator,
        key_of: Callable[[int], Key],
        first_episode: int,
        settings: ControllerSettings | None = None,
    ) -> None:
        self.simulator, self.key_of = simulator, key_of
        simulator.draws_images = False  # nobody looks at its observations
        self.settings = settings or ControllerSettings()
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
        self._is_counting = False
        self._goal_ends: list[GoalEnd] = []
        self.gripper = GripperDrive(self.settings)
        self.arm = ArmDrive(self.robot, self.settings, np.zeros(len(self.arm_joints)))
        self.base = self._make_base()
        self._place(self.episode)

    # ---------------------------------------------------------------- episodes

    def begin_next(self) -> int:
        """Reset to the next initial state and begin its episode; return its number."""
        self.episode = self.next_episode
        self.next_episode += 1
        self.time_ns += self.period_ns  # a stamp never stands for two states
        self._place(self.episode)
        self.phase, self.result, self.num_steps = "running", None, 0
        self._next_check_ns = self.time_ns + WAIT_NS
        self._is_counting = False
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
        self.gripper.command(position, self.time_ns)

    def stream_arm(
        self, joints: Sequence[str], position: Array | None, velocity: Array | None
    ) -> None:
        """Take a forwarded command of arm joints; see ArmDrive.stream.

        Raises:
            ValueError: it is refused; says why.
        """
        self._note(self.arm.stream(joints, position, velocity))

    def take_goal_ends(self) -> list[GoalEnd]:
        """Return how goals of the arm ended since this was asked last, in order."""
        ends, self._goal_ends = self._goal_ends, []
        return ends

    def command_base(self, speed: float, turn: float, stamp_ns: int) -> None:
        """Drive a base at a velocity, m/s and rad/s, until the next command or its timeout.

        Raises:
            ValueError: the command is ignored, or this is no base; says why.
        """
        if self.base is None:
            raise ValueError(f"robot '{self.robot.name}' is no base that takes a twist")
        self.base.command(speed, turn, stamp_ns, self.time_ns)

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
        simulator.draws_images = False
        self.scene = simulator.scene()

    def image(self, camera: str) -> npt.NDArray[np.uint8]:
        """Return what a camera sees now, (H, W, 3), the pixels of training's observations.

        Raises:
            SimulatorError: nothing renders here.
        """
        return self.simulator.render(None, camera)[0].numpy()

    # ---------------------------------------------------------------- time

    def step_period(self, arm_target: Array) -> None:
        """Lock step: one control period towards an arm target (A,) and the gripper's."""
        self.arm.reset(arm_target)
        self._step_targets(self._targets(arm_target))
        self.arm.trajectories.observe(self.time_ns, self.measured())

    def step_twist(self, speed: float, turn: float) -> None:
        """Lock step: one control period of a base at a velocity, m/s and rad/s.

        Raises:
            ValueError: this is no base.
        """
        if self.base is None:
            raise ValueError(f"robot '{self.robot.name}' is no base that takes a twist")
        self._step_targets(self.base.step_period(speed, turn))

    def step_substep(self) -> None:
        """Free running: one physics step along what is followed.

        An episode's time begins with the first command of the arm or base, as in training, or
        after `WAIT_NS`.
        """
        now_ns = self.time_ns
        self.time_ns += self.substep_ns
        if self.phase == "finished":  # a simulator freezes what is finished
            return
        if self.base is not None:
            target = self.base.step(now_ns, self.substep_ns)
        else:
            self._note(self.arm.step(now_ns, self.substep_ns, self.measured()))
            target = self.arm.target
        self.simulator.step_substep(self._targets(target))
        if not self._is_counting and self._is_commanded:
            self._is_counting, self._next_check_ns = True, now_ns + self.period_ns
        if self.phase == "running" and self.time_ns >= self._next_check_ns:
            self._next_check_ns += self.period_ns
            self._count(self.simulator.check_outcome())
        self.scene = self.simulator.scene()

    def measured(self) -> Motion:
        """Return what the arm's joints are measured to do."""
        columns = self.scene.joint_columns(self.arm_joints)
        return Motion(
            self.scene.joint_position[0, columns].numpy(),
            self.scene.joint_velocity[0, columns].numpy(),
        )

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

    @property
    def _is_commanded(self) -> bool:
        return (self.arm if self.base is None else self.base).is_commanded

    def _targets(self, arm: Array) -> Tensor:
        """Return the targets (1, J) of all commanded joints: the arm's, then the gripper's."""
        targets = np.array(arm, dtype=np.float64)
        if self.robot.gripper is not None:
            limit = self.robot.limits[-1]  # beyond its stops a gripper does not go
            targets = np.append(targets, np.clip(self.gripper.target, limit.lower, limit.upper))
        return torch.from_numpy(targets).unsqueeze(0)

    def _place(self, episode: int) -> None:
        key = self.key_of(episode)
        self.simulator.reset(self.simulator.task.sample([key]), None, [key])
        self.scene = self.simulator.scene()
        state = self.simulator.controller_state()
        arm = self.measured().position
        self.arm.reset(arm)
        self.arm.trajectories.observe(self.time_ns, self.measured())
        if self.base is not None:
            self.base.reset(state)
        # What the gripper is told at the start is not where it is, when it holds something.
        commanded = state["target"][0, len(arm) :]
        self.gripper.command(float(commanded[0]) if len(commanded) else 0.0, self.time_ns)

    def _note(self, end: GoalEnd | None) -> None:
        if end is not None:
            self._goal_ends.append(end)

    def _make_base(self) -> BaseDrive | None:
        contract = self.simulator.contract
        if not any(field.kind == "twist" for field in contract.action):
            return None
        controller = make_controller(contract, self.robot)
        state = self.simulator.controller_state()
        return BaseDrive(controller, self.settings.cmd_vel_timeout_s, state)

    def _step_targets(self, targets: Tensor) -> None:
        """One control period towards joint targets (1, J)."""
        result = self.simulator.step_targets(targets)
        self.time_ns += self.period_ns
        self.scene = self.simulator.scene()
        self._count(result)

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
