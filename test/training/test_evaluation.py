"""An evaluation: its outcomes belong to its keys, whatever batches they are run in."""

import torch

from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.navigate import Navigate
from grpo_ros.training.evaluation import evaluate, held_out_keys

NUM_EPISODES = 10


class Counting(MujocoSimulator):
    """Counts the control periods that each call of step carried out."""

    def __init__(self, num_envs):
        super().__init__(Navigate(), num_envs, MujocoConfig(num_threads=1))
        self.num_steps = 0

    def step(self, chunk):
        result = super().step(chunk)
        self.num_steps += int(result.executed.sum())
        return result


def _drive_ahead(obs):
    num = len(next(iter(obs.values())))
    return torch.tensor([1.0, 0.0]).repeat(num, 4, 1)


def _evaluated(num_envs):
    simulator = Counting(num_envs)
    try:
        found = evaluate(simulator, _drive_ahead, held_out_keys(NUM_EPISODES))
    finally:
        simulator.close()
    return found, simulator.num_steps


def test_outcomes_are_the_same_in_batches_of_any_size_and_none_is_run_twice():
    whole, num_steps = _evaluated(NUM_EPISODES)
    parted, num_steps_of_parts = _evaluated(4)  # batches of 4, 4 and 2
    assert len(whole.num_steps.unique()) > 2, "the episodes end at several times"
    for name in ("outcome", "score", "num_steps"):
        assert torch.equal(getattr(whole, name), getattr(parted, name)), name
    assert num_steps == num_steps_of_parts == int(whole.num_steps.sum())


def test_environments_beyond_the_only_batch_are_defined():
    few, _ = _evaluated(NUM_EPISODES + 3)
    assert len(few.outcome) == NUM_EPISODES
