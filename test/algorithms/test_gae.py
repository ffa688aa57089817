from __future__ import annotations

import pytest
import torch

from grpo_ros.algorithms.gae import (
    chunk_rewards,
    explained_variance,
    generalised_advantages,
    normalise_advantages,
)

VALUES = torch.tensor([[0.5, 0.6, 0.7]])
NEXT = torch.tensor([[0.6, 0.7, 0.8]])
REWARDS = torch.tensor([[0.0, 0.1, 1.0]])
DISCOUNTS = torch.full((1, 3), 0.9)
NEVER = torch.zeros(1, 3, dtype=torch.bool)
AT_END = torch.tensor([[False, False, True]])


def advantages(terminated: torch.Tensor, ended: torch.Tensor, trace_decay: float = 0.8):
    return generalised_advantages(
        REWARDS, DISCOUNTS, VALUES, NEXT, terminated, ended, trace_decay
    )[0].tolist()


def test_a_terminated_episode_has_no_future():
    # delta = 0.9*0.6-0.5 = 0.04, 0.1+0.9*0.7-0.6 = 0.13, 1-0.7 = 0.3;
    # A_2 = 0.3, A_1 = 0.13+0.72*0.3 = 0.346, A_0 = 0.04+0.72*0.346 = 0.28912.
    assert advantages(AT_END, AT_END) == pytest.approx([0.28912, 0.346, 0.3], abs=1e-6)


def test_a_truncated_episode_keeps_the_value_of_where_it_was_cut():
    # delta_2 = 1+0.9*0.8-0.7 = 1.02; A_1 = 0.13+0.72*1.02 = 0.8644, A_0 = 0.04+0.72*0.8644.
    assert advantages(NEVER, AT_END) == pytest.approx([0.662368, 0.8644, 1.02], abs=1e-6)


def test_nothing_flows_back_over_an_episodes_end():
    middle = torch.tensor([[False, True, True]])
    first, second, _ = advantages(middle, middle)
    assert second == pytest.approx(0.1 - 0.6, abs=1e-6)
    assert first == pytest.approx(0.04 + 0.72 * (0.1 - 0.6), abs=1e-6)


def test_with_full_traces_an_advantage_is_the_return_less_the_value():
    returns = 0.9 * 0.1 + 0.81 * 1.0
    assert advantages(AT_END, AT_END, 1.0)[0] == pytest.approx(returns - 0.5, abs=1e-6)


def test_without_traces_it_is_the_temporal_difference():
    assert advantages(AT_END, AT_END, 0.0) == pytest.approx([0.04, 0.13, 0.3], abs=1e-6)


def test_a_chunk_discounts_its_steps_and_what_follows():
    rewards = torch.tensor([[[1.0, 2.0, 7.0], [3.0, 5.0, 7.0]]])
    executed = torch.tensor([[[True, True, True], [True, False, False]]])
    earned, discounts = chunk_rewards(rewards, executed, 0.5)
    assert earned[0].tolist() == [1.0 + 1.0 + 1.75, 3.0]
    assert discounts[0].tolist() == [0.125, 0.5]


def test_an_unexecuted_reward_never_counts_even_if_not_finite():
    rewards = torch.tensor([[[1.0, torch.nan]]])
    earned, _ = chunk_rewards(rewards, torch.tensor([[[True, False]]]), 0.5)
    assert earned.tolist() == [[1.0]]


def test_chunks_of_two_agree_with_single_steps_at_their_starts():
    random = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(2, 3, 6, generator=random, dtype=torch.float64)
    ended = torch.zeros(3, 6, dtype=torch.bool)
    ended[:, -1] = True
    single = generalised_advantages(
        rewards, torch.full_like(rewards, 0.9), values, values.roll(-1, 1), ended, ended, 1.0
    )
    pairs = rewards.view(3, 3, 2)
    earned, discounts = chunk_rewards(pairs, torch.ones(3, 3, 2, dtype=torch.bool), 0.9)
    starts = values[:, ::2]
    paired = generalised_advantages(
        earned, discounts, starts, starts.roll(-1, 1), ended[:, 1::2], ended[:, 1::2], 1.0
    )
    torch.testing.assert_close(paired, single[:, ::2])


def test_normalised_advantages_have_no_mean_and_unit_spread_where_valid():
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 99.0]])
    valid = torch.tensor([[True, True, False]] * 2)
    scaled = normalise_advantages(values, valid)
    assert scaled[valid].mean() == pytest.approx(0.0, abs=1e-6)
    assert scaled[valid].std() == pytest.approx(1.0, abs=1e-6)
    assert scaled[~valid].tolist() == [0.0, 0.0]


def test_explained_variance_is_one_for_the_truth_and_zero_for_a_constant():
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(torch.full((3,), 5.0), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)


def test_rounding_is_no_variance_to_explain():
    values = 0.3 + torch.rand(1000, generator=torch.Generator().manual_seed(0))
    returns = (0.0 - values) + values + 1e-8  # what float32 makes of nought
    assert float(returns.var()) >= 0.0 and explained_variance(values, returns) == 0.0
    returns = torch.full((1000,), 1e-8) * torch.arange(1000).remainder(2)
    assert explained_variance(values, returns) == 0.0
    assert explained_variance(returns, returns) == 1.0, "small rewards are no rounding"
