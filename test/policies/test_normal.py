from __future__ import annotations

import torch

from grpo_ros.policies.normal import normal_entropy, normal_kl, normal_log_prob

MEAN = torch.tensor([[0.3, -1.2], [2.0, 0.0]], dtype=torch.float64)
STD = torch.tensor([0.5, 1.7], dtype=torch.float64)
OTHER_MEAN = torch.tensor([[0.1, -1.0], [1.0, 0.4]], dtype=torch.float64)
OTHER_STD = torch.tensor([0.7, 0.9], dtype=torch.float64)
LINE = torch.linspace(-12.0, 12.0, 4001, dtype=torch.float64)


def independent(mean, std):
    return torch.distributions.Independent(torch.distributions.Normal(mean, std), 1)


def test_log_prob_is_that_of_torch_distributions():
    value = torch.tensor([[0.0, 1.0], [2.5, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(
        normal_log_prob(value, MEAN, STD), independent(MEAN, STD).log_prob(value)
    )


def test_density_integrates_to_one():
    density = normal_log_prob(LINE.unsqueeze(-1), MEAN[0, :1], STD[:1]).exp()
    torch.testing.assert_close(torch.trapezoid(density, LINE), torch.tensor(1.0).double())


def test_entropy_is_that_of_torch_distributions():
    torch.testing.assert_close(normal_entropy(STD), independent(MEAN[0], STD).entropy())


def test_kl_is_that_of_torch_distributions():
    expected = torch.distributions.kl_divergence(
        independent(MEAN, STD), independent(OTHER_MEAN, OTHER_STD)
    )
    torch.testing.assert_close(normal_kl(MEAN, STD, OTHER_MEAN, OTHER_STD), expected)


def test_kl_is_the_integral_of_the_log_ratio():
    p = normal_log_prob(LINE.unsqueeze(-1), MEAN[0, :1], STD[:1])
    q = normal_log_prob(LINE.unsqueeze(-1), OTHER_MEAN[0, :1], OTHER_STD[:1])
    integral = torch.trapezoid(p.exp() * (p - q), LINE)
    kl = normal_kl(MEAN[0, :1], STD[:1], OTHER_MEAN[0, :1], OTHER_STD[:1])
    torch.testing.assert_close(kl, integral)


def test_kl_with_equal_std_is_the_squared_distance_over_twice_the_variance():
    expected = ((MEAN - OTHER_MEAN).square() / (2.0 * STD.square())).sum(-1)
    torch.testing.assert_close(normal_kl(MEAN, STD, OTHER_MEAN, STD), expected)


def test_kl_of_a_distribution_from_itself_is_zero():
    assert normal_kl(MEAN, STD, MEAN, STD).abs().max() == 0.0
