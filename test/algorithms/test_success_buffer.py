"""The success buffer: groups that all fail are stood in for by ones that did not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bandit import GROUP_SIZE, NUM_GROUPS, roll_out, same, weights

from grpo_ros.algorithms import GrpoConfig, make_algorithm
from grpo_ros.algorithms.critic_estimator import PpoConfig
from grpo_ros.algorithms.hybrid import HybridSettings
from grpo_ros.algorithms.mixing import HybridConfig
from grpo_ros.algorithms.success_buffer import SuccessBuffer
from grpo_ros.errors import CheckpointError, ConfigurationError
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy
from grpo_ros.randomness import Key

GAUSSIAN = GaussianConfig(hidden=(16,), initial_std=0.3)
CONFIG = GrpoConfig(
    minibatch_size=64, num_epochs=2, learning_rate=3e-3, warmup_steps=0, success_buffer=16
)
OBJECTIVES = ("outcome",)
ROWS = NUM_GROUPS * GROUP_SIZE


def with_outcome(rollout, outcome):
    return dataclasses.replace(rollout, outcome=outcome, score=outcome)


def mixed(num_mixed):
    """Outcomes of which the first groups are mixed, and all others fail."""
    outcome = torch.zeros(NUM_GROUPS, GROUP_SIZE)
    outcome[:num_mixed, ::2] = 1.0
    return outcome.flatten()


def test_only_groups_that_all_fail_are_replaced_by_kept_ones(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    buffer = SuccessBuffer(4, 10)
    first = with_outcome(roll_out(policy, 0), mixed(3))
    same_rollout, fresh = buffer.fill(first, OBJECTIVES, 0)
    assert same_rollout is first and fresh.all() and len(buffer) == 3
    outcome = mixed(0)
    outcome[-GROUP_SIZE:] = 1.0  # the last group succeeds as a whole
    second = with_outcome(roll_out(policy, 1), outcome)
    filled, fresh = buffer.fill(second, OBJECTIVES, 1)
    by_group = fresh.view(NUM_GROUPS, GROUP_SIZE).all(dim=1)
    assert by_group.tolist() == [False] * 3 + [True] * 5
    rows = 3 * GROUP_SIZE
    for name, value in filled.tensors().items():
        assert torch.equal(value[:rows], first.tensors()[name][:rows]), name
        assert torch.equal(value[rows:], second.tensors()[name][rows:]), name
    assert torch.equal(second.outcome, outcome), "what was collected is as it was"


def test_kept_groups_of_another_length_are_padded_and_masked(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    buffer = SuccessBuffer(4, 10)
    long = with_outcome(roll_out(policy, 0).lengthened(5), mixed(1))
    buffer.fill(long, OBJECTIVES, 0)
    filled, _ = buffer.fill(with_outcome(roll_out(policy, 1), mixed(0)), OBJECTIVES, 1)
    assert filled.executed.shape[:2] == (ROWS, 5)
    assert not filled.executed[:, 2:].any()


def test_old_groups_are_dropped_and_the_newest_are_kept(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    buffer = SuccessBuffer(2, maximum_age=3)
    buffer.fill(with_outcome(roll_out(policy, 0), mixed(5)), OBJECTIVES, 0)
    assert len(buffer) == 2
    newest = with_outcome(roll_out(policy, 1), mixed(1))
    buffer.fill(newest, OBJECTIVES, 2)
    filled, fresh = buffer.fill(with_outcome(roll_out(policy, 2), mixed(0)), OBJECTIVES, 4)
    assert int((~fresh).sum()) == GROUP_SIZE, "the other one is four updates old"
    assert torch.equal(filled.sample.chunk[:GROUP_SIZE], newest.sample.chunk[:GROUP_SIZE])


@pytest.mark.parametrize("config", [GAUSSIAN, FlowConfig(hidden=(16,))], ids=["gaussian", "flow"])
def test_it_learns_from_kept_groups_where_all_new_ones_fail(make_contract, config):
    policy = make_policy(config, make_contract())
    plain = make_policy(config, make_contract())
    algorithms = {True: make_algorithm(CONFIG, policy)}
    algorithms[False] = make_algorithm(dataclasses.replace(CONFIG, success_buffer=0), plain)
    for is_buffered, its in ((True, policy), (False, plain)):
        algorithm = algorithms[is_buffered]
        algorithm.update(with_outcome(roll_out(its, 0), mixed(4)), Key(0, 0))
        before = weights(its)
        failed = with_outcome(roll_out(its, 1), mixed(0))
        metrics = algorithm.update(failed, Key(0, 1))
        assert (metrics["gradient_steps"] > 0) == is_buffered
        assert same(before, weights(its)) != is_buffered
        assert metrics["all_fail_fraction"] == 1.0, "of what was collected"
    assert metrics["first_minibatch_ratio_error"] <= 1e-4


def test_kept_groups_count_neither_for_the_ratio_check_nor_for_the_divergence(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(
        dataclasses.replace(CONFIG, learning_rate=0.0, kl_target=0.0), policy
    )
    algorithm.update(with_outcome(roll_out(policy, 0), mixed(4)), Key(0, 0))
    with torch.no_grad():  # another policy since
        for parameter in policy.parameters():
            parameter.add_(0.05)
    metrics = algorithm.update(with_outcome(roll_out(policy, 1), mixed(0)), Key(0, 1))
    assert metrics["replayed_fraction"] == 0.5
    assert metrics["first_minibatch_ratio_error"] <= 1e-4
    assert metrics["approx_kl"] < 1e-6
    assert metrics["ratio_max"] > 1.01, "they are weighed by how likely they still are"


def test_a_resumed_buffer_continues_bit_for_bit(make_contract):
    policy, other = (make_policy(GAUSSIAN, make_contract()) for _ in range(2))
    algorithm, resumed = (make_algorithm(CONFIG, each) for each in (policy, other))
    algorithm.update(with_outcome(roll_out(policy, 0), mixed(4)), Key(0, 0))
    other.load_state_dict(weights(policy))
    resumed.load_state_dict(algorithm.state_dict())
    for each, its in ((algorithm, policy), (resumed, other)):
        each.update(with_outcome(roll_out(its, 1), mixed(1)), Key(0, 1))
    assert same(weights(policy), weights(other))
    assert same(algorithm.state_dict(), resumed.state_dict())
    smaller = SuccessBuffer(1, 10)
    with pytest.raises(CheckpointError, match="at most 1"):
        smaller.load_state_dict(algorithm.buffer.state_dict())


def test_it_is_refused_on_several_ranks(make_contract):
    from grpo_ros.distributed.ranks import Ranks

    ranks = Ranks()
    ranks.num = 2
    with pytest.raises(ConfigurationError, match="success_buffer"):
        make_algorithm(CONFIG, make_policy(GAUSSIAN, make_contract()), ranks=ranks)


def test_a_group_with_a_reading_that_is_no_number_is_not_kept(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    buffer = SuccessBuffer(4, 10)
    rollout = with_outcome(roll_out(policy, 0), mixed(3))
    name = next(iter(rollout.obs))
    obs = {**rollout.obs, name: rollout.obs[name].clone()}
    obs[name][0, 0] = torch.nan
    buffer.fill(dataclasses.replace(rollout, obs=obs), OBJECTIVES, 0)
    assert len(buffer) == 2
    assert all(torch.isfinite(value).all() for value in buffer.state_dict().values())


def test_a_hybrid_refuses_it(make_contract):
    settings = HybridSettings(HybridConfig(), CONFIG, PpoConfig())
    policy = make_policy(GAUSSIAN, make_contract())
    with pytest.raises(ConfigurationError, match=r"success_buffer' = 16 of a hybrid"):
        make_algorithm(settings, policy)
