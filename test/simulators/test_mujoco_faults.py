"""What MuJoCo does not tell by itself: that physics diverged, that nothing is left to move."""

import dataclasses

import pytest
import torch

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators.mujoco.simulator import TIME, MujocoConfig, MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.training.evaluation import held_out_keys

NUM_ENVS = 3


@pytest.fixture(params=[0.01, 0.05], ids=["five steps", "one step"])
def simulator(request):
    config = MujocoConfig(timestep_s=request.param, num_threads=1)
    simulator = MujocoSimulator(PickPlace(), NUM_ENVS, config)
    keys = held_out_keys(NUM_ENVS)
    simulator.reset(simulator.task.sample(keys), None, keys)
    yield simulator
    simulator.close()


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """MuJoCo writes MUJOCO_LOG.TXT where it is."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("speed", [torch.nan, 1e11])
def test_physics_that_diverged_is_an_error_that_names_the_environment(simulator, speed):
    scene = simulator.scene()
    velocities = {name: value.clone() for name, value in scene.velocities.items()}
    velocities["cube"][1, 0] = speed
    simulator.set_scene(dataclasses.replace(scene, velocities=velocities))
    with pytest.raises(SimulatorError, match=r"physics diverged in environments \[1\]"):
        simulator.step(torch.zeros(NUM_ENVS, 1, simulator.contract.action_size))


def test_time_is_counted_from_the_episodes_beginning(simulator):
    timestep_s = simulator.model.opt.timestep
    time = 0.0
    for _ in range(3):
        simulator.step(torch.zeros(NUM_ENVS, 1, simulator.contract.action_size))
        for _ in range(simulator.num_substeps):
            time += timestep_s
        assert simulator.rows.physics[:, TIME].tolist() == [time] * NUM_ENVS


def test_a_physics_step_of_finished_environments_moves_nothing(simulator):
    simulator.rows.terminated[:] = True
    before = simulator.snapshot().row_hashes()
    simulator.step_substep(simulator.controller_state()["target"])
    assert simulator.snapshot().row_hashes() == before
