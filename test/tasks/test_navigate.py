"""navigate: what counts as reached or touched, what is drawn, what the demonstrator does."""

import dataclasses
import math

import pytest
import torch

from grpo_ros.errors import ConfigurationError
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.base import Body
from grpo_ros.tasks.navigate import GAP, SMALLEST_TRIP, Navigate, NavigateConfig
from grpo_ros.tasks.range_scan import RangeScan


def _keys(num):
    return [Key(0, 0, group) for group in range(num)]


def _placed(task, base=(0.0, 0.0, 0.0), goal=(2.0, 0.0), column=(0.0, 2.0)):
    """Return a scene whose first column is where it is put and whose others are far away."""
    scene = task.sample(_keys(1))
    poses = {name: pose.clone() for name, pose in scene.poses.items()}
    for name in task.obstacles:
        poses[name][:, :2] = 40.0
    poses["goal"][0, :2] = torch.tensor(goal)
    poses[task.obstacles[0]][0, :2] = torch.tensor(column)
    joints = torch.tensor([base], dtype=torch.float64)
    return dataclasses.replace(scene, joint_position=joints, poses=poses)


@pytest.fixture(scope="module")
def task():
    return Navigate()


@pytest.mark.parametrize(("x", "reached"), [(1.71, True), (1.69, False), (2.29, True)])
def test_the_goal_is_reached_within_its_radius(task, x, reached):
    outcome = task.outcome(_placed(task, base=(x, 0.0, 1.0)))
    assert outcome.success.item() is reached and not outcome.failure.item()
    assert (outcome.score.item() == 1.0) is reached


@pytest.mark.parametrize(("y", "touches"), [(1.54, False), (1.56, True)])
def test_touching_a_column_fails_even_at_the_goal(task, y, touches):
    outcome = task.outcome(_placed(task, base=(0.0, y, 0.0), goal=(0.0, y)))
    assert outcome.failure.item() is touches and outcome.success.item() is not touches


def test_the_scan_is_exact_against_a_column():
    # 2 m ahead, radius 0.25: 1.75 m straight on; a beam at 22.5 degrees passes by; none behind.
    scan = RangeScan("scan", ("base_x", "base_y", "base_yaw"), ("column_0",), 16, 3.0)
    task = Navigate(NavigateConfig(num_obstacles=1))
    ranges = scan.read(_placed(task, base=(0.0, 0.0, math.pi / 2)), task.bodies())[0]
    assert ranges[0].item() == pytest.approx(1.75)
    assert ranges[1:].tolist() == [3.0] * 15
    turned = scan.read(_placed(task, base=(0.0, 0.0, 0.0)), task.bodies())[0]
    assert turned[4].item() == pytest.approx(1.75)
    near = scan.read(_placed(task, base=(0.0, 1.5, math.pi / 2)), task.bodies())[0]
    # The chord at angle a: 0.5 cos a - sqrt(0.25^2 - (0.5 sin a)^2).
    angle = math.pi / 8
    expected = 0.5 * math.cos(angle) - math.sqrt(0.0625 - 0.25 * math.sin(angle) ** 2)
    assert near[[1, 15]].tolist() == pytest.approx([expected] * 2)


def test_a_sensor_of_something_else_than_a_cylinder_is_refused(task):
    scan = RangeScan("scan", task.robot.arm_joints, ("floor",))
    with pytest.raises(ConfigurationError, match="'floor'.*cylinder"):
        scan.read(task.sample(_keys(1)), [Body("floor", "box", (1.0, 1.0, 0.1))])


def test_initial_states_leave_room(task):
    task = Navigate(NavigateConfig(num_obstacles=9))
    scene = task.sample(_keys(200))
    outcome = task.outcome(scene)
    assert not outcome.success.any() and not outcome.failure.any()
    base, goal = scene.joint_position[:, :2], scene.position("goal")[:, :2]
    assert torch.linalg.vector_norm(goal - base, dim=-1).min() >= SMALLEST_TRIP
    columns = torch.stack([scene.position(name)[:, :2] for name in task.obstacles], 1)
    distances = torch.cdist(columns, columns) + 9.0 * torch.eye(9, dtype=torch.float64)
    assert distances.min() >= GAP - 1e-9


def test_the_base_never_moves_sideways_and_keeps_its_limits(task):
    simulator = MujocoSimulator(task, 64)
    keys = _keys(64)
    simulator.reset(task.sample(keys), None, keys)
    source = torch.Generator().manual_seed(0)
    state = simulator.controller_state()
    for _ in range(20):
        action = torch.rand(64, 2, generator=source, dtype=torch.float64) * 4.0 - 2.0
        after = simulator.controller.step(state, action)
        moved = after["target"] - state["target"]
        middle = state["target"][:, 2] + 0.5 * moved[:, 2]
        sideways = moved[:, 1] * torch.cos(middle) - moved[:, 0] * torch.sin(middle)
        forward = moved[:, 0] * torch.cos(middle) + moved[:, 1] * torch.sin(middle)
        assert sideways.abs().max() < 1e-12
        assert forward.abs().max() <= 0.06 + 1e-9 and moved[:, 2].abs().max() <= 0.15 + 1e-9
        state = after
    simulator.close()


def test_what_is_seen_is_the_goal_in_the_bases_own_frame(task):
    simulator = MujocoSimulator(task, 1)
    obs = simulator.reset(_placed(task, base=(0.0, 0.0, math.pi / 2), goal=(2.0, 0.0)))
    assert obs["goal"][0].tolist() == pytest.approx([2.0, 0.0, -1.0], abs=1e-6)
    assert obs["scan"].shape == (1, 16) and obs["scan"][0, 0].item() == pytest.approx(1.75)
    assert set(obs) == {field.name for field in simulator.contract.observation}
    simulator.close()


@pytest.mark.parametrize(("num_obstacles", "least"), [(3, 0.97), (6, 0.95), (9, 0.93)])
def test_the_demonstrator_succeeds(demonstrated, num_obstacles, least):
    task = Navigate(NavigateConfig(num_obstacles=num_obstacles))
    assert demonstrated(task, episodes=256) >= least


def test_readings_are_noisy_only_where_randomised():
    config = NavigateConfig()
    noisy = dataclasses.replace(
        config, randomisation=dataclasses.replace(config.randomisation, enabled=True)
    )
    scans = []
    for each in (config, noisy):
        simulator = MujocoSimulator(Navigate(each), 4)
        keys = _keys(4)
        scans.append(simulator.reset(simulator.task.sample(keys), None, keys)["scan"])
        again = simulator.observe()["scan"]
        assert torch.equal(again, scans[-1])
        simulator.close()
    difference = scans[1] - scans[0]
    assert 0.0015 < difference.std() < 0.0045
