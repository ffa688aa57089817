"""A simulated base over ROS: free running, and in lock step equal to training bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from bridge_in_process import Bridge, bridge_in_process  # noqa: E402
from geometry_msgs.msg import PoseStamped, TwistStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from sensor_msgs.msg import LaserScan  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from grpo_ros.controllers import make_controller  # noqa: E402
from grpo_ros.nodes.shared import messages, qos  # noqa: E402
from grpo_ros.nodes.simulator_bridge import SimulatorBridge  # noqa: E402
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator  # noqa: E402
from grpo_ros.tasks.navigate import Navigate, NavigateConfig  # noqa: E402
from grpo_ros.tasks.range_scan import sense  # noqa: E402
from grpo_ros.training.evaluation import held_out_keys  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(120)]
SECOND_NS = 1_000_000_000


def twist(stamp_ns: int, speed: float, turn: float = 0.0) -> TwistStamped:
    message = TwistStamped()
    message.header.stamp = messages.to_time(stamp_ns)
    message.twist.linear.x, message.twist.angular.z = speed, turn
    return message


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def publisher_of(client: Bridge) -> Any:
    publisher = client.node.create_publisher(TwistStamped, "cmd_vel", qos.COMMAND)
    until(lambda: publisher.get_subscription_count() == 1)
    return publisher


def driven(client: Bridge, start: np.ndarray) -> float:
    base = client.bridge.sim.base
    assert base is not None
    return client.look(lambda: float(np.hypot(*(base.target - start)[:2])))


def test_a_base_obeys_the_newest_velocity_until_its_timeout() -> None:
    with bridge_in_process(SimulatorBridge, task="navigate") as client:
        sim = client.bridge.sim
        client.listen(Odometry, "odom", qos.SENSOR)
        client.listen(LaserScan, "scan", qos.SENSOR)
        client.listen(PoseStamped, "objects/goal/pose", qos.SENSOR)
        client.listen(TFMessage, "/tf", qos.TF)
        publisher = publisher_of(client)
        start = client.look(lambda: sim.base.target.copy())
        publisher.publish(twist(0, 0.3))
        odometry = client.wait_for("odom", lambda m: m.twist.twist.linear.x > 0.25)
        assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "base_link")
        assert abs(odometry.twist.twist.linear.y) < 0.01
        yaw = 2.0 * math.atan2(odometry.pose.pose.orientation.z, odometry.pose.pose.orientation.w)
        assert math.cos(yaw - start[2]) == pytest.approx(1.0, abs=1e-3)
        time.sleep(0.8)
        stopped = driven(client, start)
        assert stopped == pytest.approx(0.3 * (0.5 + sim.substep_ns / SECOND_NS), abs=1e-6)
        publisher.publish(twist(client.look(lambda: sim.time_ns) - SECOND_NS, 0.3))
        publisher.publish(twist(0, math.nan))
        time.sleep(0.3)
        assert driven(client, start) == stopped
        scan = client.heard("scan")[-1]
        assert (scan.angle_min, len(scan.ranges)) == (0.0, 16)
        assert scan.angle_increment == pytest.approx(2.0 * math.pi / 16)
        task = sim.simulator.task
        expected = client.look(lambda: sense(sim.scene, task.sensors(), task.bodies()))
        np.testing.assert_allclose(scan.ranges, expected.reading("base_scan")[0], atol=1e-4)
        client.wait_for("objects/goal/pose", lambda m: m.header.frame_id == "odom")
        frames = {t.child_frame_id for m in client.heard("/tf") for t in m.transforms}
        assert "base_link" in frames


def test_an_episode_of_stamped_twists_equals_training_bit_for_bit() -> None:
    (key,), num = held_out_keys(1), NavigateConfig().horizon
    simulator = MujocoSimulator(Navigate(NavigateConfig()), 1, MujocoConfig(num_threads=1))
    simulator.reset(simulator.task.sample([key]), None, [key])
    controller = make_controller(simulator.contract, simulator.robot)
    with bridge_in_process(SimulatorBridge, task="navigate", lock_step=True) as client:
        client.listen(Odometry, "odom", qos.STATE)
        publisher, sim = publisher_of(client), client.bridge.sim
        until(lambda: client.bridge.count_subscribers("odom") == 1)
        client.look(client.bridge.reset)
        state = controller.reset(simulator.scene().joints(simulator.robot.arm_joints))
        for _ in range(num):
            if client.look(lambda: sim.phase) != "running":
                break
            stamp = client.look(lambda: sim.time_ns)
            client.wait_for("odom", lambda m, t=stamp: messages.to_ns(m.header.stamp) == t)
            action = simulator.task.demonstrate(simulator.scene(), state).double()
            velocity = controller.twist(state, action)
            assert velocity is not None
            state = controller.drive(state, velocity)
            publisher.publish(twist(stamp - 1, 9.0))  # of no state: ignored
            publisher.publish(twist(stamp, *velocity[0].tolist()))
            simulator.step(action[:, None])
            until(lambda t=stamp: client.look(lambda: sim.time_ns) > t)
            scene, expected = client.look(lambda: sim.scene), simulator.scene()
            assert torch.equal(scene.joint_position, expected.joint_position)
            assert torch.equal(scene.joint_velocity, expected.joint_velocity)
        result = client.look(lambda: sim.result)
    assert result is not None and result.steps > 20
    assert result.success == bool(simulator.rows.outcome[0])
    assert result.score == float(simulator.rows.score[0])
    simulator.close()
