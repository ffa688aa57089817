"""JointLimiter: keeps commanded joints within position, velocity and acceleration limits.

The commanded velocity is constant within a control period dt and changes by at most a dt between
two. From velocity v, the shortest way to stand still, this period included, is

    D(v) = dt ((n + 1) |v| - a dt n (n + 1) / 2),    n = floor(|v| / (a dt)).

Its inverse gives the fastest velocity that can still stop at or before a distance d:

    V(d) = (d / dt + a dt m (m + 1) / 2) / (m + 1),
    m = floor((sqrt(1 + 8 d / (a dt^2)) - 1) / 2).

Choosing |v| <= V(d) keeps the next period's choice feasible, so neither a target that stands still
nor a position limit is ever overshot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grpo_ros.contract import JointLimits
from grpo_ros.elementary import Array

ARRIVED = 1e-9
"""Closer to its goal than this, in rad or m, a joint does not slow the others down."""


class JointLimiter:
    """Moves commanded joints towards goals or at velocities, within limits; stateless.

    Arrays are (J, N) float64, batch last; row-independent bit for bit.

    Args:
        limits: of the joints, in the order of the arrays' first axis.
        period_s: control period, s.
    """

    def __init__(self, limits: Sequence[JointLimits], period_s: float) -> None:
        self.period_s = period_s
        self.lower = np.array([[limit.lower] for limit in limits])
        self.upper = np.array([[limit.upper] for limit in limits])
        self.velocity = np.array([[limit.velocity] for limit in limits])
        acceleration = np.array([[limit.acceleration] for limit in limits])
        self.velocity_change = acceleration * period_s
        self._half_change = 0.5 * self.velocity_change
        self._eight_over_unit = 8.0 / (self.velocity_change * period_s)
        self._rate = 1.0 / period_s

    def towards(self, position: Array, velocity: Array, goal: Array) -> tuple[Array, Array]:
        """Return position and velocity one period on, moving to `goal` without overshoot.

        The joints keep step: their velocities aim straight at the goal, and their accelerations
        at those velocities, so that the tip is led along a nearly straight path.

        Args:
            position: (J, N) commanded, rad or m.
            velocity: (J, N) commanded, rad/s or m/s.
            goal: (J, N) where to go; clipped to the position limits.
        """
        error = np.clip(goal, self.lower, self.upper) - position
        distance = np.abs(error)
        fastest = np.minimum(self.stopping_velocity(distance), self.velocity)
        has_arrived = distance < ARRIVED
        rate = np.where(has_arrived, self._rate, fastest / np.where(has_arrived, 1.0, distance))
        wanted = error * rate.min(axis=0)
        change = wanted - velocity
        share = self.velocity_change / np.maximum(np.abs(change), self.velocity_change)
        moving = velocity + change * share.min(axis=0)
        # What a joint needs to brake comes before keeping step with the others.
        moving = np.where(moving * np.sign(error) > fastest, np.copysign(fastest, error), moving)
        return self._move(position, velocity, self._able_to_stop(position, moving))

    def at_velocity(self, position: Array, velocity: Array, desired: Array) -> tuple[Array, Array]:
        """Return position and velocity one period on, moving at the velocity `desired` (J, N)."""
        desired = np.clip(desired, -self.velocity, self.velocity)
        return self._move(position, velocity, self._able_to_stop(position, desired))

    def stopping_velocity(self, distance: Array) -> Array:
        """Return V(d) (J, N), the fastest velocity that can stop within `distance` >= 0."""
        num = np.floor(0.5 * (np.sqrt(1.0 + distance * self._eight_over_unit) - 1.0))
        following = num + 1.0
        speed: Array = (distance * self._rate + self._half_change * num * following) / following
        return speed

    def _able_to_stop(self, position: Array, velocity: Array) -> Array:
        """Return the velocities (J, N), lowered so that position limits are not overshot."""
        up = self.stopping_velocity(np.maximum(self.upper - position, 0.0))
        down = self.stopping_velocity(np.maximum(position - self.lower, 0.0))
        able: Array = np.clip(velocity, -down, up)
        return able

    def _move(self, position: Array, velocity: Array, desired: Array) -> tuple[Array, Array]:
        moving = np.clip(desired, velocity - self.velocity_change, velocity + self.velocity_change)
        # A joint that starts beyond a limit moves back within limits and never further out.
        lowest = np.minimum(position, self.lower)
        highest = np.maximum(position, self.upper)
        return np.clip(position + moving * self.period_s, lowest, highest), moving
