"""Groups start from one bit-identical state, and noise belongs to its member."""

import dataclasses

import pytest
import torch

from grpo_ros.errors import SimulatorError
from grpo_ros.policies import GaussianConfig, make_policy
from grpo_ros.randomness import Key
from grpo_ros.simulators.mujoco.simulator import MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.group_paths import PathTrace


def _collect(
    num_groups, group_size, simulator_class=MujocoSimulator, horizon=10, antithetic=False
):
    task = PickPlace(PickPlaceConfig(horizon=horizon))
    simulator = simulator_class(task, num_groups * group_size)
    policy = make_policy(GaussianConfig(), simulator.contract)
    collector = GroupCollector(simulator, num_groups, group_size, antithetic)
    rollout = collector.collect(policy, seed=5, iteration=3)
    simulator.close()
    return rollout


def test_members_see_the_same_first_observation_and_draw_different_actions():
    rollout = _collect(3, 4)
    for value in rollout.obs.values():
        groups = value[:, 0].view(3, 4, -1)
        assert torch.equal(groups, groups[:, :1].expand_as(groups))
    first = rollout.sample.chunk[:, 0].flatten(1)
    assert len(torch.unique(first, dim=0)) == 12


def test_a_rollout_does_not_depend_on_how_many_groups_share_the_batch():
    few, many = _collect(2, 3), _collect(5, 3)
    assert torch.equal(few.sample.chunk[:6, 0], many.sample.chunk[:6, 0])
    assert torch.allclose(few.sample.chunk[:6], many.sample.chunk[:6], atol=1e-5)


def test_a_horizon_that_is_no_multiple_of_the_chunk_truncates_inside_the_chunk():
    rollout = _collect(2, 2, horizon=10)
    assert rollout.executed.shape == (4, 3, 4)
    assert rollout.num_env_steps == 4 * 10
    assert rollout.truncated.all() and not rollout.terminated.any()


def test_a_group_that_does_not_start_from_one_state_is_refused():
    class Drifting(MujocoSimulator):
        def restore(self, snapshot, rows, env_ids=None):
            physics = snapshot.arrays["physics"].clone()
            physics[-1, 3] += 1e-12
            arrays = {**snapshot.arrays, "physics": physics}
            return super().restore(dataclasses.replace(snapshot, arrays=arrays), rows, env_ids)

    with pytest.raises(SimulatorError, match="environment 2 of group 1.*bit for bit"):
        _collect(2, 2, Drifting)


def test_groups_can_start_in_mid_episode():
    task = PickPlace(PickPlaceConfig(horizon=20))
    simulator = MujocoSimulator(task, 6)
    keys = [Key(1, 0, group) for group in range(6)]
    simulator.reset(task.sample(keys), None, keys)
    for _ in range(2):
        simulator.step(torch.full((6, 4, simulator.contract.action_size), 0.2))
    policy = make_policy(GaussianConfig(), simulator.contract)
    middle = simulator.snapshot([0, 3])
    rollout = GroupCollector(simulator, 2, 3).collect_from(policy, middle, 0, 0)
    assert rollout.num_env_steps == 6 * 12
    assert rollout.step_count.tolist() == [8] * 6
    assert rollout.time_passed()[:, -1].tolist() == [1.0] * 6
    simulator.close()


def test_antithetic_members_deviate_oppositely_from_the_same_mean():
    rollout = _collect(2, 5, antithetic=True)
    first = rollout.sample.chunk[:, 0].view(2, 5, -1)
    mean = (first[:, 0] + first[:, 1]) / 2
    assert torch.allclose((first[:, 2] + first[:, 3]) / 2, mean, atol=1e-6)
    assert (first[:, 0] - first[:, 1]).abs().max() > 0.05
    assert not torch.allclose(first[:, 4], mean, atol=1e-2)
    assert len(torch.unique(first.flatten(0, 1), dim=0)) == 10


def test_paths_of_a_group_start_at_one_point_and_end_where_its_members_are():
    task = PickPlace(PickPlaceConfig(horizon=20))
    simulator = MujocoSimulator(task, 6)
    policy = make_policy(GaussianConfig(), simulator.contract)
    trace = PathTrace(simulator)
    followed = GroupCollector(simulator, 2, 3, trace=trace).collect(policy, 0, 0)
    paths = trace.paths(followed, 7)
    assert paths.points.shape == (6, 6, 3) and paths.iteration == 7
    assert paths.group.tolist() == [0, 0, 0, 1, 1, 1]
    groups = paths.points.view(2, 3, 6, 3)
    assert torch.equal(groups[:, :, 0], groups[:, :1, 0].expand(2, 3, 3))
    assert torch.allclose(paths.points[:, -1].double(), task.tip(simulator.scene()), atol=1e-6)
    assert not torch.equal(groups[:, 0, -1], groups[:, 1, -1])
    plain = GroupCollector(simulator, 2, 3).collect(policy, 0, 0)
    for name, value in plain.tensors().items():
        assert torch.equal(value, followed.tensors()[name]), "looking changes nothing"
    simulator.close()


def test_the_advantage_of_a_path_is_against_its_group_or_against_all():
    task = PickPlace(PickPlaceConfig(horizon=8))
    simulator = MujocoSimulator(task, 4)
    policy = make_policy(GaussianConfig(), simulator.contract)
    trace = PathTrace(simulator)
    outcome = torch.tensor([1.0, 0.0, 1.0, 1.0])
    for size, expected in ((2, [0.5, -0.5, 0.0, 0.0]), (1, [0.25, -0.75, 0.25, 0.25])):
        collector = GroupCollector(simulator, 4 // size, size, trace=trace)
        rollout = dataclasses.replace(collector.collect(policy, 0, 0), outcome=outcome)
        paths = trace.paths(rollout, 0)
        assert paths.advantage.tolist() == expected
        assert paths.outcome.tolist() == [True, False, True, True]
    simulator.close()
