"""Settings of a policy runner: speed, ages, patience, limits."""

from __future__ import annotations

import dataclasses
from typing import Literal

from grpo_ros import typed
from grpo_ros.deployment.chunk_executor import ExecutionConfig
from grpo_ros.deployment.safety.faults import FaultConfig


@dataclasses.dataclass(frozen=True)
class RunnerConfig:
    """Settings of a policy runner."""

    speed: float = typed.setting(
        1.0,
        "Share of the trained speed: time is stretched, the path stays",
        minimum=0.01,
        maximum=1.0,
    )
    ramp_in_s: float = typed.setting(
        0.0,
        "Raise the velocity limits from 0 to those of `speed` over this time",
        unit="s",
        minimum=0.0,
    )
    position_margin: float = typed.setting(
        0.0, "How far joints keep from the contract's position limits, rad or m", minimum=0.0
    )
    tip_speed_m_s: float = typed.setting(
        0.0, "Cap of the tip's speed; 0: the robot description's", unit="m/s", minimum=0.0
    )
    max_age_s: float = typed.setting(
        0.0, "Oldest usable observation; 0: what the contract says", unit="s", minimum=0.0
    )
    extrapolates: bool = typed.setting(
        True,
        "Bring joints, by their velocity, and bodies, by their last two poses, from their stamps "
        "to the tick",
    )
    watch_arrivals: bool = typed.setting(
        False, "Judge ages by arrival on a steady clock too: a clock may freeze, a stamp repeat"
    )
    begin_timeout_s: float = typed.setting(
        10.0,
        "Longest that a run may take to begin: the first usable observation of an arm that stands",
        unit="s",
        minimum=0.1,
    )
    stop_after_s: float = typed.setting(
        0.5, "Hold for so long without a usable observation, then stop", unit="s", minimum=0.0
    )
    max_failures: int = typed.setting(
        3, "Inferences in a row that may fail before the policy is stopped", minimum=1
    )
    patience: float = typed.setting(
        0.1,
        "Share of a control period that a tick waits for a chunk that is due; its motion begins "
        "after 0.2 of one",
        minimum=0.0,
        maximum=0.15,
    )
    inference_timeout_s: float = typed.setting(
        5.0, "Longest wait for a chunk before the policy is stopped", unit="s", minimum=0.1
    )
    range_margin: float = typed.setting(
        0.1, "Share of its span by which an observation may leave what training saw", minimum=0.0
    )
    out_of_range: Literal["flag", "hold"] = typed.setting(
        "flag", "What follows on an observation outside what training saw"
    )
    follow_measured: bool = typed.setting(
        False, "Begin each chunk at the measured position: where nothing is really commanded"
    )
    execution: ExecutionConfig = typed.setting(  # noqa: RUF009
        factory=ExecutionConfig, description="How chunks are executed"
    )
    faults: FaultConfig = typed.setting(  # noqa: RUF009
        factory=FaultConfig, description="What ends a run"
    )
