"""Two ranks, each with half of the groups, take the step that one with all of them takes."""

import dataclasses

import pytest
import torch
from several_ranks import on_ranks, own_groups

from grpo_ros.algorithms import (
    GrpoConfig,
    HybridConfig,
    HybridSettings,
    PpoConfig,
    make_algorithm,
)
from grpo_ros.configuration import load_config
from grpo_ros.distributed.ranks import ONE_RANK, Ranks
from grpo_ros.distributed.rollouts import of_all_ranks, of_one_length
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy
from grpo_ros.randomness import Key
from grpo_ros.simulators.registry import make_simulator
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.metrics import rollout_metrics

GROUPS, MEMBERS = 4, 4
TOLERANCE = 1e-6
UPDATE = {
    "num_epochs": 3,
    "minibatch_size": 48,
    "objectives": ("score",),
    "warmup_steps": 0,
    # The second update is from a rollout of the policy before the first.
    "ratio_tolerance": 1e9,
}
GRPO, PPO = GrpoConfig(**UPDATE), PpoConfig(**UPDATE)
HYBRID = HybridSettings(HybridConfig(mode="mix"), GRPO, PPO)
GAUSSIAN, FLOW = GaussianConfig(hidden=(32,)), FlowConfig(hidden=(32,))
EVERYTHING = dataclasses.replace(GRPO, entropy_coefficient=0.01, reference_kl_coefficient=0.1)
TOO_FAR = dataclasses.replace(GRPO, kl_target=1e-4)
LEARNED = dataclasses.replace(FLOW, noise="learned", maximum_std=0.3)
CASES = {
    "grpo-gaussian": (GRPO, GAUSSIAN),
    "ppo-gaussian": (PPO, GAUSSIAN),
    "grpo-flow": (GRPO, FLOW),
    "ppo-flow": (PPO, FLOW),
    "mix-gaussian": (HYBRID, GAUSSIAN),
    "entropy-and-reference": (EVERYTHING, LEARNED),
    "skipped-steps": (TOO_FAR, GAUSSIAN),
    "masked-rows": (GRPO, GAUSSIAN),
    "one-rank-without-weight": (PPO, GAUSSIAN),
}

pytestmark = pytest.mark.timeout(600)  # whichever test comes first waits for all the processes


def _contract():
    return make_task("pick_place").contract()


def _rollouts():
    """Return a rollout of GROUPS groups for each case, from MuJoCo."""
    task = make_task("pick_place")
    simulator = make_simulator("mujoco", task, GROUPS * MEMBERS, load_config([]).mujoco)
    collector = GroupCollector(simulator, GROUPS, MEMBERS)
    by_policy, found = {}, {}
    for name, (_, policy_config) in CASES.items():
        if policy_config not in by_policy:
            policy = make_policy(policy_config, _contract())
            rollout = collector.collect(policy, 0, 0)
            # Nothing is scored yet by a policy that was not taught: scores are made up.
            score = torch.rand(len(rollout.score), generator=torch.Generator().manual_seed(1))
            by_policy[policy_config] = dataclasses.replace(rollout, score=score)
        found[name] = by_policy[policy_config]
    simulator.close()
    bad = {name: value.clone() for name, value in found["masked-rows"].obs.items()}
    next(iter(bad.values()))[0, 0] = torch.nan
    found["masked-rows"] = dataclasses.replace(found["masked-rows"], obs=bad)
    rollout = found["one-rank-without-weight"]
    rewards = rollout.reward_terms.clone()
    rewards[: len(rewards) // 2] = torch.nan
    score = rollout.score.clone()
    score[: len(score) // 2] = torch.nan
    found["one-rank-without-weight"] = dataclasses.replace(
        rollout, reward_terms=rewards, score=score
    )
    return found


def _improved(ranks, rollouts):
    """Return weights, the algorithm's state and metrics of two updates, by case."""
    found = {}
    for name, (config, policy_config) in CASES.items():
        policy = make_policy(policy_config, _contract())
        algorithm = make_algorithm(config, policy, torch.Generator().manual_seed(7), ranks)
        rollout = own_groups(rollouts[name], ranks)
        metrics = [algorithm.update(rollout, Key(0, iteration)) for iteration in range(2)]
        metrics[0].update(rollout_metrics(of_all_ranks(rollout, ranks)))
        found[name] = (dict(policy.state_dict()), algorithm.state_dict(), metrics)
    return found


@pytest.fixture(scope="module")
def rollouts():
    return _rollouts()


@pytest.fixture(scope="module")
def improved(rollouts):
    return _improved(ONE_RANK, rollouts), on_ranks(_improved, rollouts)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_take_the_step_of_one(improved, name):
    one, several = improved
    weights, state, metrics = one[name]
    assert metrics[0]["gradient_steps"] > 0
    for rank in several:
        assert isinstance(rank, dict), rank
        for expected, found in zip((weights, state), rank[name][:2], strict=True):
            assert expected.keys() == found.keys()
            for key, value in expected.items():
                difference = (found[key] - value).abs().nan_to_num().max()
                assert difference <= TOLERANCE, (key, float(difference))
        for expected, found in zip(metrics, rank[name][2], strict=True):
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)
    first, second = (rank[name][0] for rank in several)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert repr(several[0][name][2]) == repr(several[1][name][2])


def test_the_cases_are_what_they_are_called(improved):
    one, _ = improved
    assert one["skipped-steps"][2][-1]["skipped_too_far"] > 0
    assert one["masked-rows"][2][0]["masked_rows"] == 1


class _OtherIsLonger(Ranks):
    """One of two ranks; the other's episodes took `num` decisions."""

    def __init__(self, num):
        self.num_decisions = num

    def maximum(self, value):
        return value.clamp(min=self.num_decisions)


def test_a_shorter_rollout_is_filled_with_decisions_that_were_not_executed(rollouts):
    rollout = rollouts["grpo-gaussian"]
    num = rollout.executed.shape[1]
    filled = of_one_length(rollout, _OtherIsLonger(num + 2))
    assert filled.executed.shape[1] == filled.reward_terms.shape[1] == num + 2
    assert torch.equal(filled.executed[:, :num], rollout.executed)
    assert not filled.executed[:, num:].any() and not filled.reward_terms[:, num:].any()
    assert torch.equal(filled.sample.chunk[:, num + 1], rollout.sample.chunk[:, num - 1])
    assert filled.num_env_steps == rollout.num_env_steps
    assert of_one_length(rollout, _OtherIsLonger(num)) is rollout
