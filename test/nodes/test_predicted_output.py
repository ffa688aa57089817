"""The predicted way: that of the tip along joint targets, and of a base along twists."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")

from grpo_ros.nodes.serving.predicted_output import driven, path  # noqa: E402
from grpo_ros.robots.robot import load_robot  # noqa: E402

pytestmark = pytest.mark.ros


def test_an_arms_way_is_that_of_its_tip_in_the_base_frame() -> None:
    robot = load_robot("franka_fr3")
    home = np.array([robot.description.joints[n].home for n in robot.chain.joint_names])
    joints = np.stack([home, home + 0.05])
    message = path(7, robot, joints)
    position, _ = robot.chain.forward(torch.from_numpy(joints))
    found = [[getattr(p.pose.position, axis) for axis in "xyz"] for p in message.poses]
    assert np.allclose(found, position.numpy())
    assert {message.header.frame_id, *(p.header.frame_id for p in message.poses)} == {
        robot.base_frame
    }
    turn = message.poses[0].pose.orientation
    assert math.hypot(turn.x, turn.y, turn.z, turn.w) == pytest.approx(1.0)


def test_a_base_drives_a_circle_at_constant_twists() -> None:
    num, period_s, speed = 200, 0.05, 0.6
    turn = 2.0 * math.pi / (num * period_s)
    way = driven(np.array([1.0, 2.0, 0.3]), np.tile([speed, turn], (num, 1)), period_s)
    assert way.shape == (num + 1, 3)
    assert np.allclose(way[-1], [1.0, 2.0, 0.3 + 2.0 * math.pi], atol=1e-9)
    middle = way[:-1, :2].mean(axis=0)
    radius = np.linalg.norm(way[:, :2] - middle, axis=1)
    assert np.allclose(radius, speed / turn, rtol=1e-3)
