"""What a simulated base publishes: odometry, and what its lasers see."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from sensor_msgs.msg import LaserScan

from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.elementary import sine_cosine
from grpo_ros.nodes.shared import messages, qos
from grpo_ros.tasks.range_scan import RangeScan


class BaseOutput:
    """Publishers of a base's odometry and of the task's range scans, as far as there are any.

    Args:
        node: that publishes.
        sim: whose state it is.
    """

    def __init__(self, node: Any, sim: SimulatedRobot) -> None:
        self.sim, robot = sim, sim.robot
        names = robot.interfaces
        self._odometry_out = None
        if sim.base is not None and names.odometry:
            self._odometry_out = node.create_publisher(Odometry, names.odometry, qos.STATE)
        self._sensors = list(sim.simulator.task.sensors()) if names.scan else []
        self._scans_out = {
            sensor.name: node.create_publisher(
                LaserScan,
                names.scan if len(self._sensors) == 1 else f"{names.scan}/{sensor.name}",
                qos.STATE,
            )
            for sensor in self._sensors
        }

    def publish_odometry(self, stamp_ns: int) -> None:
        """Publish where the base is, and its velocity along its own axes."""
        if self._odometry_out is None:
            return
        motion = self.sim.measured()
        velocity = motion.velocity
        assert velocity is not None
        x, y, yaw = motion.position.tolist()
        sine, cosine = (float(part[0]) for part in sine_cosine(motion.position[2:]))
        message = Odometry()
        message.header.stamp = messages.to_time(stamp_ns)
        message.header.frame_id = self.sim.robot.base_frame
        message.child_frame_id = self.sim.robot.tip_frame
        message.pose.pose.position.x, message.pose.pose.position.y = x, y
        turn, twist = message.pose.pose.orientation, message.twist.twist
        turn.z, turn.w = math.sin(0.5 * yaw), math.cos(0.5 * yaw)
        along, across, turning = velocity.tolist()
        twist.linear.x = along * cosine + across * sine
        twist.linear.y = across * cosine - along * sine
        twist.angular.z = turning
        self._odometry_out.publish(message)

    def publish_scans(self, stamp_ns: int) -> None:
        """Publish what each laser reads; beam i points at 2 pi i / n."""
        bodies = self.sim.simulator.task.bodies() if self._sensors else ()
        for sensor in self._sensors:
            ranges = sensor.read(self.sim.scene, bodies)[0].numpy()
            self._scans_out[sensor.name].publish(
                scan(stamp_ns, self.sim.robot.tip_frame, sensor, ranges)
            )


def scan(stamp_ns: int, frame: str, sensor: RangeScan, ranges: Any) -> LaserScan:
    """Return a laser's readings (num_beams,), m; what meets nothing reads the largest range."""
    step = 2.0 * math.pi / sensor.num_beams
    message = LaserScan()
    message.header.stamp = messages.to_time(stamp_ns)
    message.header.frame_id = frame
    message.angle_min, message.angle_increment = 0.0, step
    message.angle_max = step * (sensor.num_beams - 1)
    message.range_min, message.range_max = 0.0, sensor.range_m
    message.ranges = array("f", np.asarray(ranges, dtype=np.float32).tobytes())
    return message
