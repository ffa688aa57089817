"""Typed errors: what is wrong, where, what was expected and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GrpoRosError(Exception):
    """Base of every error that a user can act on.

    Args:
        what: what is wrong, naming the key, file, joint or topic.
        expected: what would have been accepted.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, expected: str = "", remedy: str = "") -> None:
        self.what, self.expected, self.remedy = what, expected, remedy
        parts = [what]
        if expected:
            parts.append(f"expected {expected}")
        if remedy:
            parts.append(remedy)
        super().__init__("; ".join(parts))


class ConfigurationError(GrpoRosError):
    """A configuration key or value is not usable."""


class ContractError(GrpoRosError):
    """A contract is malformed, or a robot or policy cannot satisfy it."""


class RobotError(GrpoRosError):
    """A robot description (URDF or YAML) is not usable."""


class PolicyFileError(GrpoRosError):
    """A policy file is damaged, of another schema, or does not match its contract."""


class CheckpointError(GrpoRosError):
    """A checkpoint is damaged or belongs to another configuration."""


class DemonstrationError(GrpoRosError):
    """A folder of demonstrations is damaged, of another schema, or does not fit the task."""


class SimulatorError(GrpoRosError):
    """A simulator refused a request or left its numerical range."""


class BridgeError(SimulatorError):
    """The process that owns the simulator died, stalled, restarted or cannot be understood.

    Nothing is wrong with what was asked: it can be asked again once there is a bridge.
    """


class MissingExtraError(GrpoRosError):
    """An optional dependency is absent."""


class StoppedError(GrpoRosError):
    """The process was asked to stop while it waited for something."""


class TrainingError(GrpoRosError):
    """Training cannot go on without giving wrong results."""


class ReplayError(GrpoRosError):
    """A rollout is not kept, or cannot be lived through again."""


class ExperimentError(GrpoRosError):
    """A study cannot be run, or its results cannot be read."""


class RankError(TrainingError):
    """Another rank of the run failed, or was not there in time."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the closest known name, or the list of known names."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{match[0]}'?" if match else f"known: {', '.join(names)}"
