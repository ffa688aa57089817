"""Hybrids: at either end one of the two algorithms, bit for bit; switches have reasons."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bandit import roll_out, same, weights

from grpo_ros.algorithms import (
    GrpoConfig,
    HybridConfig,
    HybridSettings,
    PpoConfig,
    make_algorithm,
)
from grpo_ros.algorithms.mixing import CRITIC, GROUPS, Mixing
from grpo_ros.algorithms.value_learner import CriticConfig
from grpo_ros.errors import CheckpointError, ConfigurationError
from grpo_ros.policies import GaussianConfig, make_policy
from grpo_ros.randomness import Key

GAUSSIAN = GaussianConfig(hidden=(16,), initial_std=0.3)
UPDATE = {"minibatch_size": 64, "num_epochs": 3, "learning_rate": 3e-3, "warmup_steps": 0}
GRPO = GrpoConfig(**UPDATE)
PPO = PpoConfig(**UPDATE, critic=CriticConfig(hidden=(16,), minibatch_size=64))


def hybrid(policy, **settings):
    return make_algorithm(HybridSettings(HybridConfig(**settings), GRPO, PPO), policy)


def learn(algorithm, policy, num=3):
    for iteration in range(num):
        metrics = algorithm.update(roll_out(policy, iteration), Key(0, iteration))
    return metrics


@pytest.mark.parametrize(("group_weight", "config"), [(1.0, GRPO), (0.0, PPO)])
def test_at_either_end_it_is_one_of_the_two(make_contract, group_weight, config):
    policies = [make_policy(GAUSSIAN, make_contract()) for _ in range(2)]
    policies[1].load_state_dict(weights(policies[0]))
    learn(hybrid(policies[0], mode="mix", group_weight=group_weight), policies[0])
    learn(make_algorithm(config, policies[1]), policies[1])
    assert same(weights(policies[0]), weights(policies[1]))


def test_the_mixture_is_of_unit_spread_and_between_the_two(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = hybrid(policy, mode="mix", group_weight=0.25)
    rollout = roll_out(policy)
    by_critic, _ = algorithm.estimator.estimate(rollout)
    by_groups = algorithm.groups.estimate(rollout)
    mixed = algorithm._mixed(0.25, by_groups, by_critic)
    counted = (by_groups.weight.unsqueeze(1) * by_critic.weight) > 0
    group = by_groups.advantages.unsqueeze(1).expand_as(by_critic.advantages)
    scale = group[counted].std(correction=0)
    expected = 0.25 * group / scale + 0.75 * by_critic.advantages
    torch.testing.assert_close(mixed.advantages, expected)
    # A group that agrees still counts by what the critic says.
    agreed = dataclasses.replace(rollout, outcome=torch.ones(len(rollout.outcome)))
    parts = algorithm.groups.estimate(agreed), algorithm.estimator.estimate(agreed)[0]
    assert parts[0].weight.sum() == 0.0
    assert algorithm._mixed(0.25, *parts).weight.sum() == parts[1].weight.sum() > 0.0


def test_the_better_action_becomes_likelier(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    faster = dataclasses.replace(GRPO, learning_rate=1e-2, maximum_learning_rate=1e-2)
    algorithm = make_algorithm(HybridSettings(HybridConfig(mode="mix"), faster, PPO), policy)
    rates = []
    for iteration in range(30):
        rollout = roll_out(policy, iteration)
        rates.append(rollout.outcome.mean().item())
        algorithm.update(rollout, Key(0, iteration))
    assert rates[0] < 0.6 and sum(rates[-5:]) / 5 > 0.8


def test_where_the_critic_alone_judges_no_groups_are_asked_for(make_contract):
    algorithm = hybrid(make_policy(GAUSSIAN, make_contract()), mode="ppo_then_grpo")
    assert algorithm.rollouts_per_state(8) == 1
    algorithm.mixing.weight = GROUPS
    assert algorithm.rollouts_per_state(8) == 8


def test_a_rollout_without_groups_is_judged_by_the_critic(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = hybrid(policy, mode="ppo_then_grpo", switch_success=1.0)
    rollout = roll_out(policy)
    single = dataclasses.replace(rollout, num_groups=len(rollout.outcome), group_size=1)
    metrics = algorithm.update(single, Key(0))
    assert metrics["group_weight"] == CRITIC and "zero_variance_fraction" not in metrics


def test_what_ends_ppo_is_success_from_where_episodes_begin(make_contract, monkeypatch):
    """A rollout that begins near its end succeeds more easily, and says less of the policy."""
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm, seen = hybrid(policy, mode="ppo_then_grpo"), []
    monkeypatch.setattr(algorithm.mixing, "observe", lambda success, *_: seen.append(success))
    rollout = roll_out(policy)
    starts = (torch.arange(rollout.num_groups) >= 2).long()
    outcome = starts.float().repeat_interleave(rollout.group_size)
    rollout = dataclasses.replace(rollout, outcome=outcome, starts=starts)
    algorithm.update(rollout, Key(0))
    everywhere = dataclasses.replace(rollout, starts=torch.ones_like(starts))
    algorithm.update(dataclasses.replace(everywhere, sample=roll_out(policy).sample), Key(1))
    assert seen == [0.0, 0.75], "where none begins as episodes do, all count"


def test_a_resumed_hybrid_continues_bit_for_bit(make_contract):
    policy, other = (make_policy(GAUSSIAN, make_contract()) for _ in range(2))
    settings = {"mode": "adaptive", "patience": 2}
    algorithm, resumed = hybrid(policy, **settings), hybrid(other, **settings)
    learn(algorithm, policy, 2)
    other.load_state_dict(weights(policy))
    resumed.load_state_dict(algorithm.state_dict())
    for each, its in ((algorithm, policy), (resumed, other)):
        each.update(roll_out(its, 5), Key(0, 5))
    assert same(weights(policy), weights(other))
    assert same(algorithm.state_dict(), resumed.state_dict())
    with pytest.raises(CheckpointError, match="weight"):
        resumed.mixing.load_state_dict({})


# ------------------------------------------------------------------ when it switches


def observed(mixing, num, **measured):
    for _ in range(num):
        mixing.observe(
            measured.get("success", 0.5), measured["explained"], measured.get("same", 0.2)
        )
    return mixing


def adaptive(**settings):
    return Mixing(HybridConfig(mode="adaptive", smoothing=0.0, patience=3, **settings))


def test_the_critic_judges_once_it_has_explained_enough_for_long_enough():
    mixing = observed(adaptive(), 2, explained=0.5)
    assert mixing.weight == GROUPS and not mixing.decisions()
    observed(mixing, 1, explained=0.5)
    assert mixing.weight == CRITIC
    (told,) = mixing.decisions()
    assert "update 3: the critic judges" in told and "0.50 >= 0.3" in told
    assert not mixing.decisions(), "each is told once"


def test_one_good_update_is_not_enough():
    mixing = adaptive()
    for explained in (0.5, 0.5, 0.1) * 5:
        observed(mixing, 1, explained=explained)
    assert mixing.weight == GROUPS


def test_between_the_two_bounds_nothing_changes():
    """Hysteresis: what is good enough to stay is not good enough to come."""
    going, coming = adaptive(), adaptive()
    coming.weight = CRITIC
    for mixing in (going, coming):
        observed(mixing, 50, explained=0.15)
    assert going.weight == GROUPS and coming.weight == CRITIC


def test_groups_judge_again_where_the_critic_knows_nothing_and_they_differ():
    mixing = adaptive()
    mixing.weight = CRITIC
    observed(mixing, 5, explained=0.0, same=0.9)
    assert mixing.weight == CRITIC, "groups that all agree would say nothing"
    observed(mixing, 3, explained=0.0, same=0.2)
    assert mixing.weight == GROUPS and "explains 0.00" in mixing.decisions()[0]


def test_groups_that_agree_leave_it_to_a_critic_that_knows_anything():
    mixing = observed(adaptive(), 3, explained=0.1, same=0.85)
    assert mixing.weight == CRITIC and "85%" in mixing.decisions()[0]
    assert observed(adaptive(), 9, explained=0.0, same=0.95).weight == GROUPS


def test_ppo_ends_once_success_is_high_enough_and_does_not_come_back():
    mixing = Mixing(HybridConfig(mode="ppo_then_grpo", smoothing=0.0, patience=2))
    observed(mixing, 5, explained=0.9, success=0.6)
    assert mixing.weight == CRITIC and not mixing.is_grouped
    observed(mixing, 2, explained=0.9, success=0.75)
    assert mixing.weight == GROUPS and mixing.is_grouped
    observed(mixing, 9, explained=0.9, success=0.1)
    assert mixing.weight == GROUPS


def test_while_the_critic_judges_groups_are_looked_at_now_and_then():
    mixing = adaptive(probe_every=4)
    mixing.weight = CRITIC
    grouped = []
    for _ in range(8):
        grouped.append(mixing.is_grouped)
        observed(mixing, 1, explained=0.5)
    assert grouped == [True, False, False, False, True, False, False, False]


def test_bounds_that_would_switch_to_and_fro_are_refused():
    with pytest.raises(ConfigurationError, match="critic_is_bad"):
        HybridConfig(critic_is_bad=0.4, critic_is_good=0.3)


def test_one_update_that_explains_nothing_is_outlived():
    mixing = Mixing(HybridConfig(patience=1))
    mixing.observe(0.5, -1e16, 0.2)
    for _ in range(10):
        mixing.observe(0.5, 0.9, 0.2)
    assert mixing.weight == CRITIC
