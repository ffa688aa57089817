"""Parameters of the simulator bridge."""

from __future__ import annotations

import dataclasses
from typing import Literal

from grpo_ros import typed
from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.training.evaluation import HELD_OUT_SEED


@dataclasses.dataclass(frozen=True)
class SimulatorBridgeConfig:
    """Parameters of the simulator bridge."""

    task: str = typed.setting("pick_place", "What is simulated, where no policy is given")
    policy: str = typed.setting("", "ONNX file whose task, and its settings, are simulated")
    simulator: str = typed.setting("", "Engine; empty: the policy's run's, or the default")
    lock_step: bool = typed.setting(False, "One control period per stamped command")
    real_time_factor: float = typed.setting(
        1.0, "Simulated over wall-clock time, free running", minimum=0.01, maximum=100.0
    )
    initial_states: Literal["heldout"] = typed.setting(
        "heldout", "heldout: those of the evaluation, in order"
    )
    seed: int = typed.setting(HELD_OUT_SEED, "Seed of the initial states", minimum=0)
    first_episode: int = typed.setting(0, "Number of the first initial state", minimum=0)
    command_timeout_s: float = typed.setting(
        5.0, "Lock step: longest wait for a command within an episode", unit="s", minimum=0.1
    )
    joint_state_rate_hz: float = typed.setting(100.0, "Free running", unit="Hz", minimum=1.0)
    object_pose_rate_hz: float = typed.setting(50.0, "Free running", unit="Hz", minimum=1.0)
    camera_rate_hz: float = typed.setting(
        20.0, "Images, free running; drawn where somebody listens", unit="Hz", minimum=0.1
    )
    transform_rate_hz: float = typed.setting(
        30.0, "Transforms and markers, per second of wall-clock time", unit="Hz", minimum=0.1
    )
    controllers: ControllerSettings = typed.setting(  # noqa: RUF009
        factory=ControllerSettings, description="As ros2_controllers has them"
    )
