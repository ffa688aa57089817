"""A base driven by twists: equal to training in lock step, as on a robot free running."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from grpo_ros.controllers import make_controller
from grpo_ros.deployment.simulation.controller_settings import ControllerSettings
from grpo_ros.deployment.simulation.simulated_robot import SimulatedRobot
from grpo_ros.errors import ContractError
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.navigate import Navigate, NavigateConfig
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.evaluation import held_out_keys

ONE_THREAD = MujocoConfig(num_threads=1)


def make_robot(keys: list[Key], settings: ControllerSettings | None = None) -> SimulatedRobot:
    simulator = MujocoSimulator(Navigate(NavigateConfig()), 1, ONE_THREAD)
    return SimulatedRobot(simulator, lambda i: keys[i], 0, settings)


@pytest.fixture
def robot() -> SimulatedRobot:
    return make_robot(held_out_keys(3))


def actions_of(episode: int, num: int) -> torch.Tensor:
    """Return actions (num, 2) that wander, some of them beyond what limits allow."""
    random = np.random.default_rng(episode)
    steps = random.standard_normal((num, 2)).cumsum(axis=0) * 0.4
    return torch.from_numpy(np.clip(steps, -1.5, 1.5))


def in_process(keys: list[Key], num: int) -> list[list[SceneState]]:
    """Return every scene of whole episodes, one environment each."""
    simulator = MujocoSimulator(Navigate(NavigateConfig()), len(keys), ONE_THREAD)
    simulator.reset(simulator.task.sample(keys), None, keys)
    scenes = []
    for step in range(num):
        chunk = torch.stack([actions_of(i, num)[step] for i in range(len(keys))])[:, None]
        simulator.step(chunk)
        scenes.append(simulator.scene())
    simulator.close()
    return [[scene.rows([i]) for scene in scenes] for i in range(len(keys))]


def test_whole_episodes_driven_by_twists_equal_those_driven_by_actions_bit_for_bit() -> None:
    keys, num = held_out_keys(4), NavigateConfig().horizon
    expected = in_process(keys, num)
    robot = make_robot(keys)
    controller = make_controller(robot.simulator.contract, robot.robot)
    lengths = []
    for episode in range(len(keys)):
        robot.begin_next()
        state = controller.reset(robot.scene.joints(robot.arm_joints))
        for step in range(num):
            action = actions_of(episode, num)[step : step + 1].clamp(-1.0, 1.0)
            twist = controller.twist(state, action)
            assert twist is not None
            stepped, state = controller.step(state, action), controller.drive(state, twist)
            assert all(torch.equal(state[name], value) for name, value in stepped.items())
            robot.step_twist(float(twist[0, 0]), float(twist[0, 1]))
            scene = expected[episode][step]
            assert torch.equal(robot.scene.joint_position, scene.joint_position)
            assert torch.equal(robot.scene.joint_velocity, scene.joint_velocity)
            if robot.phase != "running":
                break
        lengths.append(robot.num_steps)
    assert max(lengths) == num  # one episode at least is driven to its end
    robot.simulator.close()


def test_a_contract_without_a_twist_makes_none_and_drives_none() -> None:
    task = PickPlace()
    controller = make_controller(task.contract(), task.robot)
    state = controller.reset(task.robot.home[None])
    assert controller.twist(state, torch.zeros(1, controller.action_size)) is None
    with pytest.raises(ContractError, match="a twist was given"):
        controller.drive(state, torch.zeros(1, 2))


def run(robot: SimulatedRobot, duration_s: float) -> None:
    for _ in range(round(duration_s * 1e9) // robot.substep_ns):
        robot.step_substep()


def target(robot: SimulatedRobot) -> np.ndarray:
    assert robot.base is not None
    return robot.base.target.copy()


def test_a_constant_twist_drives_an_arc(robot: SimulatedRobot) -> None:
    speed, turn, duration = 0.4, 0.8, 0.4
    start = target(robot)
    robot.command_base(speed, turn, 0)
    run(robot, duration)
    yaw = start[2] + turn * duration
    expected = [
        start[0] + speed / turn * (math.sin(yaw) - math.sin(start[2])),
        start[1] - speed / turn * (math.cos(yaw) - math.cos(start[2])),
        yaw,
    ]
    np.testing.assert_allclose(target(robot), expected, atol=1e-6)


def test_a_base_stops_when_its_command_is_older_than_the_timeout(robot: SimulatedRobot) -> None:
    start = target(robot)
    robot.command_base(0.4, 0.0, 0)
    run(robot, 2.0)
    driven = float(np.hypot(*(target(robot) - start)[:2]))
    # the step that begins at an age of 0.5 s still drives
    assert driven == pytest.approx(0.4 * (0.5 + robot.substep_ns / 1e9), abs=1e-9)


def test_a_commands_age_counts_from_its_own_stamp(robot: SimulatedRobot) -> None:
    start = target(robot)
    run(robot, 1.0)
    robot.command_base(0.4, 0.0, robot.time_ns - 300_000_000)
    run(robot, 1.0)
    driven = float(np.hypot(*(target(robot) - start)[:2]))
    assert driven == pytest.approx(0.4 * (0.2 + robot.substep_ns / 1e9), abs=1e-9)


@pytest.mark.parametrize(
    ("speed", "age_s", "match"),
    [(0.4, 0.5, "0.5 s old, expected less than"), (math.nan, 0.0, "not finite")],
)
def test_stale_and_unsound_commands_leave_the_one_before(
    robot: SimulatedRobot, speed: float, age_s: float, match: str
) -> None:
    run(robot, 1.0)
    robot.command_base(0.2, 0.0, 0)
    with pytest.raises(ValueError, match=match):
        robot.command_base(speed, 0.0, robot.time_ns - round(age_s * 1e9))
    start = target(robot)
    run(robot, 0.1)
    assert float(np.hypot(*(target(robot) - start)[:2])) == pytest.approx(0.02)


def test_an_arm_takes_no_twist() -> None:
    simulator = MujocoSimulator(PickPlace(), 1, ONE_THREAD)
    robot = SimulatedRobot(simulator, lambda i: held_out_keys(1, first=i)[0], 0)
    for drive in (lambda: robot.command_base(0.1, 0.0, 0), lambda: robot.step_twist(0.1, 0.0)):
        with pytest.raises(ValueError, match="no base"):
            drive()
    simulator.close()
