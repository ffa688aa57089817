"""Extrapolation: what was measured a little earlier, brought to now.

A policy was trained on observations as old as its decision. What comes over a wire is some
milliseconds older, and a tip that moves at 0.2 m/s is 2 mm further by 10 ms: as much as the play
of an insertion. Joints go on at their measured velocity, bodies as they moved between their last
two poses.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from grpo_ros.deployment.inputs.required_inputs import NANOSECONDS

Array = npt.NDArray[np.float64]
LONGEST_NS = 100_000_000
"""Joints are brought no further, and poses further apart say nothing of how a body moves."""

LEAST_LIKENESS = 0.9
"""Of two quaternions, their dot product: poses 52 degrees and more apart are no steady turn."""


def bring_joints(position: Array, velocity: Array, age_ns: npt.NDArray[np.int64]) -> Array:
    """Return p + v t for positions (J,) as old as t, at most LONGEST_NS; where v is NaN, p.

    Args:
        position, velocity: (J,).
        age_ns: (J,); what is from the future stays.
    """
    times = np.clip(age_ns, 0, LONGEST_NS) / NANOSECONDS
    brought: Array = position + np.nan_to_num(velocity) * times
    return brought


@dataclasses.dataclass(frozen=True)
class MovingPose:
    """A body's last pose, and the one before it.

    Attributes:
        stamp_ns: of the last. pose: (7,) m, and quaternion x, y, z, w.
        before_ns, before: of the one before; None where there is none.
    """

    stamp_ns: int
    pose: Array
    before_ns: int = 0
    before: Array | None = None

    def followed_by(self, stamp_ns: int, pose: Array) -> MovingPose:
        """Return what is held once another pose has come; the same stamp again replaces one."""
        if stamp_ns == self.stamp_ns:
            return dataclasses.replace(self, pose=pose)
        return MovingPose(stamp_ns, pose, self.stamp_ns, self.pose)

    def at(self, now_ns: int) -> Array:
        """Return the pose (7,) at a time: p1 + (p1 - p0) t / (t1 - t0), quaternions likewise.

        It goes as far again at most, so that noise of poses that come in quick succession is not
        taken for speed.
        """
        time_ns, since_ns = now_ns - self.stamp_ns, self.stamp_ns - self.before_ns
        if self.before is None or time_ns <= 0 or not 0 < since_ns <= LONGEST_NS:
            return self.pose
        share = min(1.0, time_ns / since_ns)
        before = self.before.copy()
        likeness = float(self.pose[3:] @ before[3:])
        if abs(likeness) < LEAST_LIKENESS:
            return self.pose
        before[3:] *= np.sign(likeness)  # both signs are the same rotation
        brought: Array = self.pose + share * (self.pose - before)
        brought[3:] /= np.linalg.norm(brought[3:])
        return brought
