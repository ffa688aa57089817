"""What the policy foresees, for whoever looks: its chunk, and the way of the tip along it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from trajectory_msgs.msg import JointTrajectory

from grpo_ros import rotations
from grpo_ros.controllers.twist import arc_velocity
from grpo_ros.deployment.answers import Command
from grpo_ros.deployment.policy_runner import PolicyRunner
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.robots.robot import Robot

Array = npt.NDArray[np.float64]


class PredictedOutput:
    """Publishers of ~/predicted_chunk and ~/predicted_path; nothing is made that nobody hears.

    Args:
        node: a lifecycle node, that publishes.
        runner: whose chunks these are.
    """

    def __init__(self, node: Any, runner: PolicyRunner) -> None:
        self._node, self._runner = node, runner
        self._chunk_out = node.create_lifecycle_publisher(
            JointTrajectory, "~/predicted_chunk", qos.STATE
        )
        self._path_out = node.create_lifecycle_publisher(Path, "~/predicted_path", qos.STATE)

    def publish(self, command: Command) -> None:
        """Publish a chunk that begins with a command."""
        points = command.points[: max(1, command.num_asked)]
        if self._chunk_out.get_subscription_count():
            period_ns = round(self._runner.period_s * messages.NANOSECONDS)
            self._chunk_out.publish(
                messages.trajectory(command.stamp_ns, command.names, points, period_ns)
            )
        reading = self._runner.reading
        if reading is not None and self._path_out.get_subscription_count():
            robot = self._runner.robot
            start = reading.scene.joints(robot.chain.joint_names)[0].double().numpy()
            if self._runner.is_base:
                joints = driven(start, points, self._runner.period_s)
            else:
                joints = np.vstack([start, points[:, _columns(command, robot)]])
            self._path_out.publish(path(command.stamp_ns, robot, joints))

    def destroy(self) -> None:
        """Publish no more."""
        for publisher in (self._chunk_out, self._path_out):
            self._node.destroy_lifecycle_publisher(publisher)


def path(stamp_ns: int, robot: Robot, joints: Array) -> Path:
    """Return the tip's poses along joint positions (R, J), rad or m, in the base frame."""
    position, rotation = robot.chain.forward(torch.from_numpy(joints))
    poses = torch.cat([position, rotations.matrix_to_quaternion(rotation)], dim=1)
    message = Path()
    message.header.stamp = messages.to_time(stamp_ns)
    message.header.frame_id = robot.base_frame
    found: list[PoseStamped] = [
        messages.pose(stamp_ns, robot.base_frame, values) for values in poses.tolist()
    ]
    message.poses = found
    return message


def driven(start: Array, twists: Array, period_s: float) -> Array:
    """Return where a base comes along twists (R, 2), m/s and rad/s: x, y, yaw (R + 1, 3)."""
    joints = [start]
    for twist in twists:
        x_y_yaw = joints[-1]
        velocity = arc_velocity(x_y_yaw[2:], twist[:, None], period_s)[:, 0]
        joints.append(x_y_yaw + period_s * velocity)
    return np.stack(joints)


def _columns(command: Command, robot: Robot) -> list[int]:
    return [command.names.index(name) for name in robot.chain.joint_names]
