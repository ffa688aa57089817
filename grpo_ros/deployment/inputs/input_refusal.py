"""Why an input is not taken, where whoever reads it finds out before it reaches the buffer."""

from __future__ import annotations

from grpo_ros.errors import GrpoRosError


class InputRefusal(GrpoRosError):
    """An input that is malformed or not what the policy was trained with.

    Args:
        kind: what it is counted under: encoding, size, range, layout, frame, ...
        what, expected, remedy: as in every error.
    """

    def __init__(self, kind: str, what: str, *, expected: str = "", remedy: str = "") -> None:
        super().__init__(what, expected=expected, remedy=remedy)
        self.kind = kind
