from __future__ import annotations

import math

import pytest
import torch

from grpo_ros.algorithms import losses
from grpo_ros.policies.normal import normal_kl, normal_log_prob


def test_surrogate_with_unequal_clips_is_the_one_worked_out_by_hand():
    ratios = torch.tensor([[0.5, 0.9, 1.0, 1.25, 1.5]])
    loss_up = losses.clipped_surrogate(ratios.log(), torch.tensor([[2.0]]), 0.2, 0.28)
    loss_down = losses.clipped_surrogate(ratios.log(), torch.tensor([[-2.0]]), 0.2, 0.28)
    torch.testing.assert_close(loss_up, -torch.tensor([[1.0, 1.8, 2.0, 2.5, 2.56]]))
    torch.testing.assert_close(loss_down, torch.tensor([[1.6, 1.8, 2.0, 2.5, 3.0]]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "has_gradient"),
    [
        (1.30, 1.0, False),
        (1.27, 1.0, True),
        (0.70, 1.0, True),
        (0.79, -1.0, False),
        (0.81, -1.0, True),
        (1.50, -1.0, True),
    ],
)
def test_gradient_stops_exactly_where_the_clip_is_counted(ratio, advantage, has_gradient):
    log_ratio = torch.tensor([[math.log(ratio)]], requires_grad=True)
    a = torch.tensor([[advantage]])
    losses.clipped_surrogate(log_ratio, a, 0.2, 0.28).sum().backward()
    assert (log_ratio.grad.item() != 0.0) == has_gradient
    low = losses.clipped_low(log_ratio.detach(), a, 0.2).item()
    high = losses.clipped_high(log_ratio.detach(), a, 0.28).item()
    assert (low or high) == (not has_gradient)
    assert not (low and high)


def test_ratio_reductions_are_those_worked_out_by_hand():
    new = torch.tensor([[1.0, 3.0, 7.0], [5.0, 5.0, 5.0]])
    old = torch.tensor([[0.5, 2.0, 0.0], [0.0, 0.0, 0.0]])
    executed = torch.tensor([[True, True, False], [False, False, False]])
    step, chunk, mean = (
        losses.log_ratio(new, old, executed, how).tolist() for how in ("step", "chunk", "mean")
    )
    assert step == [[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert chunk == [[1.5, 1.5, 0.0], [0.0, 0.0, 0.0]]
    assert mean == [[0.75, 0.75, 0.0], [0.0, 0.0, 0.0]]


def test_equal_policies_have_ratio_one_under_every_reduction():
    log_prob = torch.randn(6, 4)
    executed = torch.rand(6, 4) > 0.5
    for how in ("step", "chunk", "mean"):
        assert losses.log_ratio(log_prob, log_prob, executed, how).abs().max() == 0.0


def test_k3_estimates_the_divergence_of_old_from_new():
    line = torch.linspace(-10.0, 10.0, 8001, dtype=torch.float64).unsqueeze(-1)
    old_mean, old_std, new_mean, new_std = (
        torch.tensor([value], dtype=torch.float64) for value in (0.0, 1.0, 0.3, 1.2)
    )
    old = normal_log_prob(line, old_mean, old_std)
    new = normal_log_prob(line, new_mean, new_std)
    estimate = losses.approximate_kl(new - old)
    assert estimate.min() >= 0.0
    expectation = torch.trapezoid(old.exp() * estimate, line[:, 0])
    torch.testing.assert_close(expectation, normal_kl(old_mean, old_std, new_mean, new_std))


def test_an_entry_without_weight_gives_no_gradient_even_if_it_is_not_finite():
    values = torch.tensor([1.0, torch.nan, 2.0], requires_grad=True)
    total = losses.weighted_sum(values, torch.tensor([1.0, 0.0, 0.5]))
    total.backward()
    assert total.item() == 2.0
    assert values.grad.tolist() == [1.0, 0.0, 0.5]


def test_effective_sample_fraction_is_one_for_equal_ratios_and_small_for_one_that_dominates():
    weight = torch.ones(10)
    assert losses.effective_sample_fraction(torch.zeros(10), weight).item() == pytest.approx(1.0)
    dominated = torch.full((10,), -20.0)
    dominated[0] = 0.0
    assert losses.effective_sample_fraction(dominated, weight).item() == pytest.approx(0.1)
