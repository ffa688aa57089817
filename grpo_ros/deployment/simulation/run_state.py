"""RunState: whether a simulation's time passes, and what may follow what."""

from __future__ import annotations

from grpo_ros.deployment.simulation.refusal import Refusal

STATES = ("stopped", "playing", "paused", "quitting")


class RunState:
    """The state of a simulation, as simulation_interfaces has it.

    playing <-> paused; from either to stopped, which also resets; from stopped to either; from
    each to quitting, after which there is nothing.

    Args:
        lock_step: commands let time pass then, so that it can neither be paused nor played.

    Attributes:
        now: stopped | playing | paused | quitting.
    """

    def __init__(self, lock_step: bool) -> None:
        self.lock_step = lock_step
        self.now = "playing"

    @property
    def is_playing(self) -> bool:
        """Whether time passes by itself, or by commands."""
        return self.now == "playing"

    def check(self, target: str) -> None:
        """Raise Refusal where the target cannot follow the present state."""
        if target not in STATES or self.now == "quitting":
            raise Refusal(
                "INCORRECT_TRANSITION",
                f"from '{self.now}' to '{target}'",
                expected=f"one of {', '.join(STATES)}",
            )
        if target == self.now:
            raise Refusal("ALREADY_IN_TARGET_STATE", f"the simulation is already '{target}'")
        if self.lock_step and target != "quitting":
            raise Refusal(
                "STATE_TRANSITION_ERROR",
                f"'{target}' in lock step, where every stamped command lets time pass",
                remedy="start the bridge with lock_step:=false",
            )

    def check_stepping(self) -> None:
        """Raise Refusal where single steps cannot be taken."""
        if self.lock_step:
            raise Refusal(
                "RESULT_OPERATION_FAILED",
                "lock step: every stamped command is one control period, nothing else steps",
                remedy="start the bridge with lock_step:=false",
            )
        if self.now != "paused":
            raise Refusal(
                "RESULT_OPERATION_FAILED",
                f"the simulation is '{self.now}'",
                expected="'paused'",
                remedy="set it with SetSimulationState",
            )
