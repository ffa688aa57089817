"""The whole deployed path, without ROS, against the in-process evaluation: equal bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from grpo_ros.contract import Contract
from grpo_ros.controllers import make_controller
from grpo_ros.deployment.policy_runner import Command, PolicyRunner
from grpo_ros.deployment.runner_config import RunnerConfig
from grpo_ros.deployment.safety.faults import FaultConfig
from grpo_ros.deployment.simulation.simulated_robot import EpisodeResult, SimulatedRobot
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.base import Task
from grpo_ros.tasks.insert import Insert, InsertConfig
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.tasks.scene_state import SceneState
from grpo_ros.training.evaluation import evaluate, held_out_keys

Episode = tuple[EpisodeResult, SceneState]
Obs = Mapping[str, np.ndarray[Any, Any]]


class WanderingPolicy:
    """A fixed nonlinear map from observations to chunks: moves, turns, opens and closes."""

    def __init__(self, contract: Contract) -> None:
        random = np.random.default_rng(3)
        self.shape = contract.chunk_size, contract.action_size
        size = contract.state_size
        self.first = random.standard_normal((64, size)) * 3.0
        self.second = random.standard_normal((self.shape[0] * self.shape[1], 64)) * 0.6
        self.names = [field.name for field in contract.state_fields]

    def infer(self, obs: Obs) -> np.ndarray[Any, Any]:
        rows = np.concatenate([obs[name] for name in self.names], axis=1).astype(np.float64)
        # Sums in a fixed order per row, so that a row does not depend on its batch.
        chunks = [np.tanh(self.second @ np.tanh(self.first @ row)) for row in rows]
        return np.stack(chunks).reshape(-1, *self.shape).astype(np.float32)


@pytest.fixture(
    scope="module",
    params=[
        PickPlace(PickPlaceConfig(horizon=24)),
        PickPlace(PickPlaceConfig(horizon=24, motion="smooth")),
        Insert(InsertConfig(horizon=24)),
    ],
    ids=["pick_place", "pick_place, smooth", "insert"],
)
def task(request: pytest.FixtureRequest) -> Task:
    return request.param


def run_deployed(task: Task, policy: WanderingPolicy, keys: list[Key]) -> list[Episode]:
    contract = task.contract()
    simulator = MujocoSimulator(task, 1, MujocoConfig(num_threads=1))
    robot = SimulatedRobot(simulator, lambda i: keys[i], 0)
    runner = PolicyRunner(
        contract,
        policy.infer,
        task.robot,
        make_controller(contract, task.robot),
        RunnerConfig(faults=FaultConfig(watch_torque=False)),
    )
    results = []
    names = task.robot.joint_names
    for _ in keys:
        robot.begin_next()
        runner.start()
        while robot.phase == "running":
            scene, now = robot.scene, robot.time_ns
            shuffled = [3, 7, 1, 0, 6, 2, 5, 4]
            runner.buffer.put_joint_state(
                now,
                [names[i] for i in shuffled],
                scene.joint_position[0, shuffled].numpy(),
                scene.joint_velocity[0, shuffled].numpy(),
            )
            for body in runner.buffer.body_names:
                pose = scene.poses[body][0].tolist()
                runner.buffer.put_pose(now, body, task.robot.base_frame, pose[:3], pose[3:])
            assert runner.buffer.aligned_ns() == now
            command = runner.tick(now)
            assert isinstance(command, Command), command
            assert command.interventions == ()
            if command.gripper is not None:
                robot.command_gripper(command.gripper.position)
            robot.step_period(command.points[0])
        runner.stop()
        assert robot.result is not None
        results.append((robot.result, robot.scene))
    simulator.close()
    return results


def test_deployed_episodes_equal_the_in_process_ones_bit_for_bit(task: Task) -> None:
    keys = held_out_keys(6)
    policy = WanderingPolicy(task.contract())
    simulator = MujocoSimulator(task, 6, MujocoConfig(num_threads=1))

    def decide(obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return torch.from_numpy(policy.infer({name: v.numpy() for name, v in obs.items()}))

    evaluation = evaluate(simulator, decide, keys)
    expected = simulator.scene()
    for row, (result, scene) in enumerate(run_deployed(task, policy, keys)):
        assert result.success == bool(evaluation.outcome[row])
        assert result.score == float(evaluation.score[row])
        assert result.steps == int(evaluation.num_steps[row])
        assert torch.equal(scene.joint_position[0], expected.joint_position[row])
        for name, pose in expected.poses.items():
            assert torch.equal(scene.poses[name][0], pose[row])
    simulator.close()
