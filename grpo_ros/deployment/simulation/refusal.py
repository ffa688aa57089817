"""Refusal: why a request to a running simulation is not carried out."""

from __future__ import annotations

from grpo_ros.errors import GrpoRosError


class Refusal(GrpoRosError):
    """A request was refused.

    Args:
        code: name of the result, as simulation_interfaces calls it (RESULT_NOT_FOUND).
        what, expected, remedy: see `GrpoRosError`.
    """

    def __init__(self, code: str, what: str, *, expected: str = "", remedy: str = "") -> None:
        super().__init__(what, expected=expected, remedy=remedy)
        self.code = code
