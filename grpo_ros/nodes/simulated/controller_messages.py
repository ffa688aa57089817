"""Messages of a joint_trajectory_controller from and to what the simulated one works with."""

from __future__ import annotations

from collections.abc import Sequence

from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance as JointToleranceMsg
from control_msgs.msg import JointTrajectoryControllerState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from grpo_ros.deployment.simulation.tolerances import JointTolerance
from grpo_ros.deployment.simulation.trajectory_checks import RawPoint
from grpo_ros.deployment.simulation.trajectory_controller import TrajectoryController
from grpo_ros.deployment.simulation.trajectory_follower import Array, Motion
from grpo_ros.nodes.shared import messages


def raw_points(message: JointTrajectory) -> list[RawPoint]:
    """Return a trajectory's points as they came."""
    return [
        RawPoint(
            messages.to_ns(point.time_from_start),
            point.positions,
            point.velocities,
            point.accelerations,
            point.effort,
        )
        for point in message.points
    ]


def tolerances(given: Sequence[JointToleranceMsg]) -> list[JointTolerance]:
    """Return a goal's tolerances of joints."""
    return [
        JointTolerance(one.name, one.position, one.velocity, one.acceleration) for one in given
    ]


def state(controller: TrajectoryController) -> JointTrajectoryControllerState:
    """Return ~/controller_state at the last update; velocities, not commanded, have error 0."""
    message = JointTrajectoryControllerState()
    message.header.stamp = messages.to_time(controller.time_ns)
    message.joint_names = list(controller.joints)
    message.reference = _point(controller.reference)
    message.feedback = _point(controller.feedback)
    message.error = _error(controller.error)
    message.output = _point(Motion(controller.output))
    return message


def feedback(controller: TrajectoryController) -> FollowJointTrajectory.Feedback:
    """Return a goal's feedback at the last update."""
    message = FollowJointTrajectory.Feedback()
    message.header.stamp = messages.to_time(controller.time_ns)
    message.joint_names = list(controller.joints)
    message.desired = _point(controller.reference)
    message.actual = _point(controller.feedback)
    message.error = _error(controller.error)
    return message


def _point(motion: Motion) -> JointTrajectoryPoint:
    point = JointTrajectoryPoint(positions=messages.to_doubles(motion.position))
    if motion.velocity is not None:
        point.velocities = messages.to_doubles(motion.velocity)
    if motion.acceleration is not None:
        point.accelerations = messages.to_doubles(motion.acceleration)
    return point


def _error(error: Array) -> JointTrajectoryPoint:
    return _point(Motion(error, 0.0 * error))
