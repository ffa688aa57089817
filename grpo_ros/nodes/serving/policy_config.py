"""Parameters of the policy server."""

from __future__ import annotations

import dataclasses
from typing import Literal

from grpo_ros import typed
from grpo_ros.deployment.runner_config import RunnerConfig
from grpo_ros.errors import ConfigurationError
from grpo_ros.nodes.inputs.observation_inputs import InputsConfig
from grpo_ros.robots.description import ArmCommand
from grpo_ros.robots.robot import Robot


@dataclasses.dataclass(frozen=True)
class PolicyServerConfig:
    """Parameters of the policy server."""

    policy: str = typed.setting("", "ONNX file of the policy")
    robot: str = typed.setting("", "Robot description, name or folder; empty: the policy's own")
    providers: tuple[str, ...] = typed.setting(
        ("cuda", "cpu"), "Execution providers of ONNX Runtime by preference; the CPU stands in"
    )
    command: Literal["", ArmCommand] = typed.setting(
        "", "What carries the commands; empty: as the robot description says"
    )
    stream_rate_hz: float = typed.setting(
        100.0, "Samples per second of a streamed command", unit="Hz", minimum=1.0, maximum=1000.0
    )
    hardware: bool = typed.setting(False, "A real robot: refuse what is fit for simulation only")
    dry_run: bool = typed.setting(False, "Do everything but command")
    lock_step: bool = typed.setting(False, "Tick on stamps instead of on the clock")
    autostart: bool = typed.setting(True, "Configure and activate at once")
    interface_timeout_s: float = typed.setting(
        30.0, "Longest wait for the robot's topics and controllers", unit="s", minimum=0.0
    )
    judge: bool = typed.setting(
        False, "End a run once the task's predicate holds on what is observed; write it down"
    )
    goal_body: str = typed.setting(
        "goal", "Base: body whose pose navigate_to_pose gives, if the policy observes it"
    )
    goal_radius_m: float = typed.setting(
        0.3, "navigate_to_pose succeeds within this distance", unit="m", minimum=0.01
    )
    black_box_s: float = typed.setting(
        30.0, "Seconds of messages kept for each intervention; 0: none", unit="s", minimum=0.0
    )
    black_box_folder: str = typed.setting("", "Empty: black_box beside the policy")
    inputs: InputsConfig = typed.setting(  # noqa: RUF009
        factory=InputsConfig, description="Where observations come from"
    )
    runner: RunnerConfig = typed.setting(  # noqa: RUF009
        factory=RunnerConfig, description="Speed, ages, limits and patience"
    )


def check_config(config: PolicyServerConfig, is_simulated: bool) -> None:
    """Raise ConfigurationError for parameters that contradict each other.

    Args:
        config: of the node.
        is_simulated: whether its time comes on /clock.

    Raises:
        ConfigurationError: no policy; lock step or simulated time on hardware; commands that begin
            anew at what is measured.
    """
    if not config.policy:
        raise ConfigurationError("parameter 'policy' is empty", expected="an ONNX file")
    if config.hardware and config.lock_step:
        raise ConfigurationError(
            "lock_step with hardware", expected="one of them: a real robot waits for nobody"
        )
    if config.hardware and is_simulated:
        raise ConfigurationError(
            "use_sim_time with hardware",
            expected="one of them: a real robot goes on while /clock stands still",
            remedy="set use_sim_time to false; deploy.launch.py does, where it is left out",
        )
    if config.runner.follow_measured and not config.dry_run:
        raise ConfigurationError(
            "runner.follow_measured without dry_run",
            expected="both: a robot that moves would be commanded to stand at each chunk",
        )


def command_kind(config: PolicyServerConfig, robot: Robot, is_base: bool) -> str:
    """Return what carries the commands.

    Raises:
        ConfigurationError: an arm by twists or a base by joints, or a velocity stream to hardware
            that nothing would stop.
    """
    kind: str = config.command or robot.interfaces.arm_command
    if is_base != (kind in ("twist", "twist_stamped")):
        raise ConfigurationError(
            f"command '{kind}' for a policy of {'a base' if is_base else 'an arm'}",
            expected="twist or twist_stamped" if is_base else "a command of joints",
        )
    if kind == "velocity_stream" and config.hardware and not robot.safety.stream_watchdog:
        raise ConfigurationError(
            f"command 'velocity_stream' to robot '{robot.name}' on hardware",
            expected="safety.stream_watchdog in its robot.yaml",
            remedy="forward velocity controllers have no time-out of their own: name what stops "
            "the robot when the stream ends, or command it by trajectories",
        )
    return kind


def runner_settings(config: PolicyServerConfig) -> RunnerConfig:
    """Return the runner's settings.

    A simulated robot has no driver that reports faults; in lock step inputs wait for each other.
    """
    runner = config.runner
    faults = runner.faults
    if not config.hardware:
        faults = dataclasses.replace(faults, watch_mode=False, watch_torque=False)
    if config.dry_run:
        faults = dataclasses.replace(faults, watch_tracking=False)
    return dataclasses.replace(
        runner,
        faults=faults,
        follow_measured=runner.follow_measured or config.dry_run,
        watch_arrivals=not config.lock_step and (runner.watch_arrivals or config.hardware),
    )
