from __future__ import annotations

import math

import pytest
import torch

from grpo_ros.algorithms.advantages import (
    group_advantages,
    group_std,
    leave_one_out_mean,
    mask_non_finite,
    members_agree,
    normalise_then_sum,
    standardise,
)

# Two groups of four: means 0.25 and 0.5, standard deviations sqrt(3)/4 and 1/2.
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
ALL = torch.ones(2, 4, dtype=torch.bool)


def test_advantages_are_rewards_minus_the_group_mean():
    expected = [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]]
    assert group_advantages(REWARDS, ALL).tolist() == expected


def test_advantages_of_a_group_sum_to_zero():
    rewards = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(5, 8, generator=torch.Generator().manual_seed(1)) > 0.3
    total = group_advantages(rewards, valid).sum(1)
    torch.testing.assert_close(total, torch.zeros(5), atol=1e-6, rtol=0)


def test_dividing_by_the_standard_deviation_gives_unit_spread():
    scaled = group_advantages(REWARDS, ALL, divide_by_std=True)
    expected = torch.tensor([[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]]) / torch.tensor(
        [[math.sqrt(3.0) / 4.0], [0.5]]
    )
    torch.testing.assert_close(scaled, expected, atol=1e-5, rtol=0)


def test_leave_one_out_baseline_is_the_mean_of_the_others():
    rewards = torch.tensor([[3.0, 1.0, 2.0]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    assert leave_one_out_mean(rewards, valid).tolist() == [[1.5, 2.5, 2.0]]


def test_leave_one_out_is_the_mean_baseline_times_g_over_g_minus_one():
    rewards = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(6, 8, dtype=torch.bool)
    left_out = group_advantages(rewards, valid, "leave_one_out")
    torch.testing.assert_close(left_out, group_advantages(rewards, valid) * 8.0 / 7.0)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("divide_by_std", [False, True])
def test_a_reward_that_is_not_finite_masks_its_member_and_no_other(baseline, divide_by_std):
    with_nan = torch.tensor([[1.0, 0.0, torch.nan, 0.0, torch.inf]])
    rewards, valid = mask_non_finite(with_nan)
    advantages = group_advantages(rewards, valid, baseline, divide_by_std)
    others = torch.tensor([[1.0, 0.0, 0.0]])
    expected = group_advantages(
        others, torch.ones(1, 3, dtype=torch.bool), baseline, divide_by_std
    )
    assert valid.tolist() == [[True, True, False, True, False]]
    torch.testing.assert_close(advantages[:, [0, 1, 3]], expected)
    assert advantages[:, [2, 4]].tolist() == [[0.0, 0.0]]


def test_a_group_without_any_finite_reward_agrees_and_has_advantage_zero():
    rewards, valid = mask_non_finite(torch.full((1, 3), torch.nan))
    assert members_agree(rewards, valid).tolist() == [True]
    assert group_advantages(rewards, valid, "leave_one_out", True).tolist() == [[0.0, 0.0, 0.0]]


def test_a_member_alone_has_advantage_zero():
    rewards, valid = mask_non_finite(torch.tensor([[1.0, torch.nan]]))
    assert group_advantages(rewards, valid, "leave_one_out").tolist() == [[0.0, 0.0]]


def test_groups_agree_whose_members_have_one_reward():
    rewards = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    valid = torch.ones(3, 3, dtype=torch.bool)
    assert members_agree(rewards, valid).tolist() == [True, True, False]


def test_a_masked_member_does_not_make_a_group_disagree():
    rewards, valid = mask_non_finite(torch.tensor([[1.0, 1.0, torch.nan]]))
    assert members_agree(rewards, valid).tolist() == [True]


def test_normalise_then_sum_keeps_apart_what_the_sum_collapses():
    # Members 0 and 1 have equal sums, from objectives of unlike spread.
    objectives = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.9]]])
    valid = torch.ones(1, 4, dtype=torch.bool)
    summed = group_advantages(objectives.sum(-1), valid, divide_by_std=True)
    advantages = normalise_then_sum(objectives, torch.ones(2), valid)
    assert summed[0, 0] == summed[0, 1]
    assert (advantages[0, 0] - advantages[0, 1]).abs() > 0.1


def test_normalise_then_sum_is_the_one_worked_out_by_hand():
    # First objective: (1, 0) -> (1, -1). Second: (0, 10) -> (-1, 1). Weights 3 and 1: (2, -2).
    objectives = torch.tensor([[[1.0, 0.0], [0.0, 10.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    advantages = normalise_then_sum(objectives, torch.tensor([3.0, 1.0]), valid)
    torch.testing.assert_close(advantages, torch.tensor([[1.0, -1.0]]), atol=1e-5, rtol=0)


def test_normalise_then_sum_does_not_feel_the_scale_of_an_objective():
    objectives = torch.rand(4, 8, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(4, 8, dtype=torch.bool)
    scaled = objectives * torch.tensor([1.0, 100.0, 0.5])
    torch.testing.assert_close(
        normalise_then_sum(objectives, torch.ones(3), valid),
        normalise_then_sum(scaled, torch.ones(3), valid),
        atol=1e-3,
        rtol=0,
    )


def test_standardised_values_have_zero_mean_and_unit_spread_over_the_valid_ones():
    values, valid = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[True, True, False]])
    torch.testing.assert_close(
        standardise(values, valid), torch.tensor([[-1.0, 1.0, 0.0]]), atol=1e-5, rtol=0
    )


def test_group_std_is_zero_where_members_agree():
    assert group_std(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)).max() == 0.0


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("reward", [13.37, 0.7, 1e-3, 1e4])
@pytest.mark.parametrize("size", [3, 8, 16])
def test_rounding_is_no_advantage_where_members_agree(reward, size, baseline):
    rewards, valid = torch.full((4, size), reward), torch.ones(4, size, dtype=torch.bool)
    assert not group_advantages(rewards, valid, baseline, divide_by_std=True).any()
    objectives = torch.stack([rewards, rewards.clone()], dim=-1)
    objectives[0, :, 0] = torch.arange(size) % 2  # one group differs, in one objective
    summed = normalise_then_sum(objectives, torch.ones(2), valid, baseline)
    alone = normalise_then_sum(objectives[..., :1], torch.ones(1), valid, baseline)
    torch.testing.assert_close(summed, alone)


def test_a_batch_is_standardised_over_all_ranks():
    class Two:
        """Two ranks, of which the other has had other values."""

        def gather(self, mine):
            return torch.cat([mine, torch.tensor([3.0, 5.0])])

    own = torch.tensor([[1.0, 2.0], [7.0, torch.inf]])
    valid = torch.isfinite(own)
    every = torch.tensor([1.0, 2.0, 7.0, 3.0, 5.0])
    expected = (own[valid] - every.mean()) / (every.std(correction=0) + 1e-6)
    found = standardise(own, valid, Two())
    torch.testing.assert_close(found[valid], expected)
    assert found[1, 1] == 0.0
