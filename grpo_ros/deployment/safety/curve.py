"""The motion that control points stand for: what is put on the wire.

Control points q_k, one per control period T, are joined by straight lines; the line is averaged
over the last T and then over the last `ramp_s` = tau <= T. The result is a cubic spline. Being an
average, it keeps every bound that the control points' differences keep:

    position      lower <= q_k <= upper                      at every instant,
    velocity      d_k = (q_k - q_{k-1}) / T,  |d_k| <= v_max,
    acceleration  A_k = (d_{k+1} - d_k) / T,  |A_k| <= a_max,
    jerk          (A_k - A_{k-1}) / tau,      at most 2 a_max / tau <= j_max,

and it lags the straight lines by (T + tau) / 2. With M_k = (q_{k-1} + q_k) / 2 its knots are

    at t_k:        p = M_k - d_k tau / 2 + A_{k-1} tau^2 / 6,   v = d_k - A_{k-1} tau / 2,
    at t_k + tau:  p = M_k + d_k tau / 2 + A_k tau^2 / 6,       v = d_k + A_k tau / 2.

Between knots it is a cubic polynomial, so the spline that a joint_trajectory_controller lays
through positions and velocities is this curve itself, at whatever rate it samples.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
SAME_ACCELERATION = 1e-9
"""Changes of acceleration below this, in rad/s^2 or m/s^2, make no knot."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A motion that begins at time 0 where the one before stood, and ends at rest.

    Attributes:
        times: (M,) of the knots, s; the first is 0.
        positions, velocities: (M, J) at the knots; the last velocity is 0.
    """

    times: Array
    positions: Array
    velocities: Array

    def sample(self, time_s: float) -> tuple[Array, Array]:
        """Return position and velocity (J,) at a time; at rest after the last knot."""
        times = self.times
        if time_s >= times[-1]:
            return self.positions[-1].copy(), np.zeros_like(self.positions[-1])
        row = max(0, int(np.searchsorted(times, time_s, side="right")) - 1)
        span = times[row + 1] - times[row]
        s = min(1.0, max(0.0, (time_s - times[row]) / span))
        p0, p1 = self.positions[row], self.positions[row + 1]
        v0, v1 = self.velocities[row] * span, self.velocities[row + 1] * span
        rise = p1 - p0
        c2, c3 = 3.0 * rise - 2.0 * v0 - v1, v0 + v1 - 2.0 * rise
        position = p0 + s * (v0 + s * (c2 + s * c3))
        velocity = (v0 + s * (2.0 * c2 + 3.0 * s * c3)) / span
        return position, velocity

    @property
    def end_s(self) -> float:
        """When the motion is at rest, s."""
        return float(self.times[-1])


def make_curve(
    position: Array,
    velocity: Array,
    velocity_before: Array,
    points: Array,
    period_s: float,
    ramp_s: float,
) -> Curve:
    """Return the curve through control points, from the present one on.

    Args:
        position: (J,) q_0, the control point of time 0.
        velocity: (J,) d_0. velocity_before: (J,) d_{-1}.
        points: (M, J) q_1 to q_M; the last two agree, or q_M equals q_0.
        period_s: T. ramp_s: tau.
    """
    q = np.concatenate([position[None], points])
    d = np.concatenate([velocity[None], np.diff(q, axis=0) / period_s])
    d[-1] = 0.0  # what rounding leaves
    before = (velocity - velocity_before) / period_s
    a = np.concatenate([before[None], np.diff(d, axis=0) / period_s, np.zeros_like(before[None])])
    middle = q - 0.5 * period_s * d
    half, sixth = 0.5 * ramp_s, ramp_s * ramp_s / 6.0
    t = period_s * np.arange(len(q))
    early = t, middle - half * d + sixth * a[:-1], d - half * a[:-1]
    late = t + ramp_s, middle + half * d + sixth * a[1:], d + half * a[1:]
    is_knot = (np.abs(a[1:] - a[:-1]) > SAME_ACCELERATION).any(axis=1)
    is_knot[-1] = True
    keep_early = is_knot.copy()
    keep_early[0] = True
    if ramp_s >= period_s * (1.0 - 1e-9):  # a ramp ends where the next one begins
        keep_early[1:] &= ~is_knot[:-1]
    times, positions, velocities = (
        np.concatenate([first[keep_early], second[is_knot]])
        for first, second in zip(early, late, strict=True)
    )
    order = np.argsort(times, kind="stable")
    return Curve(times[order], positions[order], velocities[order])
