"""A snapshot is restored where it fits, and changes nothing where it does not."""

import dataclasses

import pytest
import torch

from grpo_ros.errors import SimulatorError
from grpo_ros.simulators import conformance
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.base import Randomisation
from grpo_ros.tasks.insert import Insert, InsertConfig
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.tasks.stack import Stack, StackConfig

NUM_ENVS = 3
RANDOM = PickPlaceConfig(randomisation=Randomisation(enabled=True))
COARSE = MujocoConfig(timestep_s=0.025, num_threads=1)


def started(task, config=None):
    config = config or MujocoConfig(num_threads=1)
    return conformance._started(MujocoSimulator(task, NUM_ENVS, config))


@pytest.fixture(scope="module")
def simulator():
    simulator = started(PickPlace())
    yield simulator
    simulator.close()


def expect_refused(simulator, snapshot, rows, message):
    """Check that a restore is refused, and nothing of it written."""
    before = simulator.snapshot().row_hashes()
    with pytest.raises(SimulatorError, match=message):
        simulator.restore(snapshot, rows)
    assert simulator.snapshot().row_hashes() == before


@pytest.mark.parametrize(
    ("taken", "restored"),
    [
        ((Insert(InsertConfig(clearance_m=0.001)),), (Insert(InsertConfig(clearance_m=0.003)),)),
        ((PickPlace(RANDOM),), (PickPlace(),)),
        ((Stack(StackConfig(num_cubes=2)),), (Stack(StackConfig(num_cubes=3)),)),
        ((PickPlace(),), (PickPlace(), COARSE)),
    ],
    ids=["bodies", "randomisation", "number of bodies", "time step"],
)
def test_a_snapshot_of_another_model_is_refused(taken, restored):
    first, second = started(*taken), started(*restored)
    message = "snapshot of engine 'mujoco .*expected 'mujoco .*scene, time step"
    expect_refused(second, first.snapshot(), range(NUM_ENVS), message)
    first.close()
    second.close()


def test_settings_that_leave_the_model_alone_do_not_matter(simulator):
    other = started(PickPlace(PickPlaceConfig(horizon=9, rewards=("outcome", "progress"))))
    other.restore(simulator.snapshot(), range(NUM_ENVS))
    assert other.snapshot().row_hashes() == simulator.snapshot().row_hashes()
    other.close()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tip", lambda value: None, "do not both have tip"),
        ("tips", lambda value: torch.zeros(NUM_ENVS), "do not both have tips"),
        ("__class__", lambda value: torch.zeros(NUM_ENVS), "do not both have __class__"),
        ("tip", lambda value: value[:, :2], r"'tip' is \(3, 2\).*expected \(3, 3\)"),
        ("tip", lambda value: value[0], r"'tip' is \(3,\).*expected \(3, 3\)"),
        ("tip", lambda value: value[:2], r"'tip' is \(2, 3\).*expected \(3, 3\)"),
        ("tip", lambda value: value.float(), "'tip' is .*float32; expected .*float64"),
        ("physics", lambda value: torch.tensor(1.0), r"'physics' is \(\)"),
    ],
)
def test_arrays_that_do_not_fit_are_named(simulator, name, change, message):
    snapshot = simulator.snapshot()
    arrays = {**snapshot.arrays, name: change(snapshot.arrays.get(name))}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    expect_refused(
        simulator, dataclasses.replace(snapshot, arrays=arrays), range(NUM_ENVS), message
    )


@pytest.mark.parametrize("rows", [[0, 1, 7], [0, 1, -1]])
def test_a_row_that_is_not_there_is_named(simulator, rows):
    message = rf"snapshot rows \[0, 1, {rows[2]}\]; expected 0 to 2"
    expect_refused(simulator, simulator.snapshot(), rows, message)
    expect_refused(simulator, simulator.snapshot(), [0], "1 rows for 3 environments")
