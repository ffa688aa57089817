from __future__ import annotations

import math

import pytest
import torch

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies import ActionSample, FlowConfig, make_policy
from grpo_ros.policies.denoising import noise_schedule, sde_step

SMALL = FlowConfig(hidden=(32, 32))


def observe(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "tip": torch.randn(num, 3, generator=generator),
        "gap": torch.randn(num, 2, generator=generator),
    }


def noise_of(policy, num, seed=1):
    return torch.randn(num, *policy.noise_shape, generator=torch.Generator().manual_seed(seed))


def test_a_step_without_noise_is_the_euler_step_of_the_flow():
    x, v = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    mean, std = sde_step(x, v, 0.25, 0.25, 0.0)
    torch.testing.assert_close(mean, x + 0.25 * v)
    assert std == 0.0


def test_a_noisy_step_is_the_one_worked_out_by_hand():
    # x = 0.3, v = -0.8, t = 0.25, dt = 0.25, sigma = 0.6.
    # x0_hat = 0.3 + 0.2 = 0.5; score = -0.5 / 0.75 = -2/3; drift = -0.8 + 0.18 * (-2/3) = -0.92.
    mean, std = sde_step(torch.tensor(0.3), torch.tensor(-0.8), 0.25, 0.25, 0.6)
    assert mean.item() == pytest.approx(0.3 - 0.92 * 0.25)
    assert std == pytest.approx(0.3)


def test_noise_leaves_the_distribution_of_the_flow_as_it_is():
    # Data N(0.7, 0.2^2), noise N(0, 1): the exact velocity is linear in x, so mean and variance of
    # the stochastic process follow from where x = 0 and x = 1 go.
    data_mean, data_std, num_steps, a = 0.7, 0.2, 4000, 0.8
    mean, variance = 0.0, 1.0
    for k in range(num_steps):
        t, dt = k / num_steps, 1.0 / num_steps
        marginal = (1 - t) ** 2 + (t * data_std) ** 2
        gain = (t * data_std**2 - (1 - t)) / marginal

        def velocity(x, gain=gain, t=t):
            return data_mean + gain * (x - t * data_mean)

        sigma = a * math.sqrt((1 - t) / max(t, dt))
        at_zero, std = sde_step(torch.tensor(0.0).double(), velocity(0.0), t, dt, sigma)
        at_one, _ = sde_step(torch.tensor(1.0).double(), velocity(1.0), t, dt, sigma)
        slope = float(at_one - at_zero)
        mean, variance = slope * mean + float(at_zero), slope**2 * variance + std**2
    assert mean == pytest.approx(data_mean, abs=2e-3)
    assert math.sqrt(variance) == pytest.approx(data_std, abs=4e-3)


def test_the_schedule_has_the_published_figures():
    config = FlowConfig(noise_level=0.5, num_steps=4)
    std = noise_schedule(config) * math.sqrt(0.25)
    torch.testing.assert_close(std, torch.tensor([0.5, 0.433, 0.25, 0.144]), atol=5e-4, rtol=0)


def test_the_schedule_keeps_the_least_standard_deviation():
    config = FlowConfig(noise_level=0.0, minimum_std=0.03)
    torch.testing.assert_close(noise_schedule(config) * 0.5, torch.full((4,), 0.03))
    constant = FlowConfig(noise_level=0.3, schedule="constant")
    torch.testing.assert_close(noise_schedule(constant), torch.full((4,), 0.3))


def test_with_vanishing_noise_a_sample_is_the_deterministic_chunk(make_contract):
    config = FlowConfig(hidden=(32, 32), noise_level=0.0, minimum_std=1e-4)
    policy = make_policy(config, make_contract())
    obs, noise = observe(20), 0.1 * noise_of(make_policy(config, make_contract()), 20)
    chunk = policy.act(obs, noise).chunk
    torch.testing.assert_close(
        chunk.clamp(-1, 1), policy.decide(obs, noise[:, 0]), atol=1e-3, rtol=0
    )


def test_likelihood_right_after_acting_is_the_recorded_one(make_contract):
    policy = make_policy(FlowConfig(), make_contract())
    policy.normaliser.fit(torch.randn(50, 5) * 3.0 + 1.0)
    obs = observe(256)
    with torch.no_grad():
        sample = policy.act(obs, noise_of(policy, 256))
        again = policy.log_prob(obs, sample)
    assert sample.log_prob.shape == (256, 4)
    torch.testing.assert_close(again, sample.log_prob, atol=1e-6, rtol=0)


def test_what_was_drawn_is_mean_plus_std_times_the_step_noise(make_contract):
    policy = make_policy(SMALL, make_contract())
    obs, noise = observe(64), noise_of(policy, 64)
    sample = policy.act(obs, noise)
    mean, std = policy.distribution(obs, sample)
    torch.testing.assert_close(
        (policy.sampled_value(sample) - mean) / std, noise[:, 1], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("index", range(4))
def test_the_density_of_each_transition_integrates_to_one(make_contract, index):
    policy = make_policy(SMALL, make_contract(chunk_size=1, action_size=1)).double()
    line = torch.linspace(-8.0, 8.0, 4001, dtype=torch.float64).view(-1, 1, 1)
    num = len(line)
    obs = {name: value[:1].expand(num, -1).double() for name, value in observe(1).items()}
    latents = {
        "index": torch.full((num,), index),
        "before": torch.full_like(line, 0.4),
        "after": line,
    }
    # The features are float32 by contract; the density is checked at double precision.
    policy.features = lambda obs: torch.cat([obs["tip"], obs["gap"]], dim=1)
    sample = ActionSample(line, torch.zeros(num, 1), latents)
    density = policy.log_prob(obs, sample).exp()[:, 0]
    assert torch.trapezoid(density, line.flatten()).item() == pytest.approx(1.0, abs=1e-9)


def test_every_allowed_step_is_drawn_equally_often_and_no_other(make_contract):
    policy = make_policy(
        FlowConfig(hidden=(8,), num_steps=5, noisy_steps=(1, 3)), make_contract(1, 1)
    )
    index = policy.act(observe(4000), noise_of(policy, 4000)).latents["index"]
    assert set(index.tolist()) == {1, 3}
    assert (index == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_sample_depends_on_its_own_noise_alone(make_contract):
    policy = make_policy(SMALL, make_contract())
    obs, noise = observe(8), noise_of(policy, 8)
    altered = noise.clone()
    altered[1:] = 0.0
    first, second = policy.act(obs, noise), policy.act(obs, altered)
    assert torch.equal(first.chunk[0], second.chunk[0])
    assert torch.equal(first.latents["index"][0], second.latents["index"][0])
    assert not torch.equal(first.chunk[1:], second.chunk[1:])


def test_mode_takes_no_noise_and_stays_in_range(make_contract):
    policy = make_policy(SMALL, make_contract())
    with torch.no_grad():
        policy.network[-1].bias[0] = 50.0
    mode = policy.mode(observe(9))
    assert torch.equal(mode, policy.decide(observe(9), torch.zeros(9, 4, 2)))
    assert mode.shape == (9, 4, 2)
    assert mode.max() == 1.0
    assert mode.min() >= -1.0


def test_entropy_is_the_mean_over_noisy_steps(make_contract):
    policy = make_policy(FlowConfig(noise_level=0.5, noisy_steps=(0, 2)), make_contract())
    expected = sum(torch.distributions.Normal(0.0, std).entropy() * 2 / 2 for std in (0.5, 0.25))
    torch.testing.assert_close(policy.entropy(observe(3)), expected.expand(3))


def test_flow_matching_learns_two_modes_that_a_mean_would_merge(make_contract):
    policy = make_policy(FlowConfig(hidden=(64, 64), num_steps=8), make_contract(1, 1))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    seen = {"tip": torch.zeros(256, 3), "gap": torch.zeros(256, 2)}
    chunk = torch.where(torch.arange(256).view(-1, 1, 1) % 2 == 0, 0.7, -0.7)
    for _ in range(1000):
        loss = policy.bc_loss(seen, chunk, torch.ones(256, 1), generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    obs = {"tip": torch.zeros(400, 3), "gap": torch.zeros(400, 2)}
    with torch.no_grad():
        drawn = policy.decide(obs, torch.randn(400, 1, 1, generator=generator)).flatten()
    assert ((drawn.abs() - 0.7).abs() < 0.25).float().mean() > 0.85
    assert (drawn > 0).float().mean().item() == pytest.approx(0.5, abs=0.15)


def test_cloning_ignores_steps_that_were_not_demonstrated(make_contract):
    policy = make_policy(SMALL, make_contract())
    weight = torch.ones(8, 4)
    weight[:, 2:] = 0.0
    chunk = torch.zeros(8, 4, 2)
    loss = policy.bc_loss(observe(8), chunk, weight, torch.Generator().manual_seed(0))
    gradient = torch.autograd.grad(loss, policy.network[-1].bias)[0].view(4, 2)
    assert (gradient[2:] == 0.0).all()
    assert (gradient[:2] != 0.0).all()


def test_a_noisy_step_beyond_the_last_is_refused():
    with pytest.raises(ConfigurationError, match="noisy_steps"):
        FlowConfig(num_steps=4, noisy_steps=(4,))


def test_configuration_survives_the_round_trip_through_json():
    config = FlowConfig(hidden=(8, 8), noisy_steps=(0, 2), schedule="constant")
    assert typed.decode(FlowConfig, typed.encode(config)) == config
