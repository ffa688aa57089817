"""Settings of the Isaac Lab simulator; imports nothing of Isaac Lab."""

from __future__ import annotations

import dataclasses
from typing import Literal

from grpo_ros import typed


@dataclasses.dataclass(frozen=True)
class IsaacLabConfig:
    """Settings of the Isaac Lab simulator."""

    backend: Literal["newton", "kit"] = typed.setting(
        "newton", "newton: without Isaac Sim, CPU or GPU; kit: PhysX under Isaac Sim"
    )
    device: str = typed.setting("cpu", "Where physics runs: cpu | cuda:0 | ...")
    robot_asset: str = typed.setting(
        "", "USD or MJCF file of the robot, joints named as in its YAML; empty: its URDF"
    )
    timestep_s: float = typed.setting(0.01, "Physics time step", unit="s", minimum=1e-4)
    solver_iterations: int = typed.setting(50, "newton: iterations at most", minimum=1)
    line_search_iterations: int = typed.setting(
        50, "newton: steps of a line search at most", minimum=1
    )
    max_contacts: int = typed.setting(48, "newton: contacts of one environment", minimum=8)
    max_constraints: int = typed.setting(
        320, "newton: rows of one environment's constraints", minimum=32
    )

    @property
    def is_proven(self) -> bool:
        """Whether the conformance suite has been run, and passed, on this backend and device."""
        return self.backend == "newton" and self.device == "cpu"
