from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError
from grpo_ros.policies.denoising import Denoiser, DenoisingConfig, noise_schedule, sde_step
from grpo_ros.policies.noise_network import NoiseNetwork
from grpo_ros.policies.normal import normal_kl, normal_log_prob

CONFIGS = [
    DenoisingConfig(likelihood=likelihood, noise=noise, num_steps=3, noise_level=0.5)
    for likelihood, noise in itertools.product(("transition", "joint"), ("fixed", "learned"))
]
MODES = pytest.mark.parametrize(
    "config", CONFIGS, ids=[f"{config.likelihood}-{config.noise}" for config in CONFIGS]
)
JOINT = pytest.mark.parametrize("config", CONFIGS[2:], ids=["fixed", "learned"])
SHAPES = pytest.mark.parametrize(
    ("shape", "block"), [((4, 2), (4, 2)), ((6, 5), (4, 2))], ids=["whole", "block"]
)


class Head(nn.Module):
    """A velocity in which every entry depends on every other, as in a transformer."""

    def __init__(self, shape, seed=0):
        super().__init__()
        size = math.prod(shape)
        self.mix, self.out = nn.Linear(size + 1, 32), nn.Linear(32, size)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.5, 0.5, generator=generator)

    def forward(self, x, t):
        inputs = torch.cat((x.flatten(1), t.unsqueeze(-1)), dim=-1)
        return self.out(torch.tanh(self.mix(inputs))).view_as(x)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw(denoiser, head, num=128, seed=0):
    """A sample from drawn noise, and the standard deviation that it was drawn with."""
    block = denoiser.block
    std = None
    if denoiser.config.noise == "learned":
        std = 0.05 + 0.1 * torch.sigmoid(normal(seed + 3, num, *block))
    noise = normal(seed, num, *denoiser.shape), normal(seed + 1, num, denoiser.num_draws, *block)
    return denoiser.sample(head, *noise, normal(seed + 2, num), std), noise, std


def transition(config, head, x, k, block, std):
    """Mean and std in the block of step k from x, from the definitions."""
    dt = 1.0 / config.num_steps
    rows, columns = block
    v = head(x, torch.full((len(x),), k * dt))
    if config.noise == "learned":
        return (x + dt * v)[:, :rows, :columns], std
    sigma = noise_schedule(config)[k]
    mean, scale = sde_step(x, v, k * dt, dt, sigma)
    return mean[:, :rows, :columns], scale.expand(len(x), rows, columns)


def transitions(denoiser, head, latents, std):
    """What each row drew, as normals: [(rows, value, normal), ...]."""
    config, found = denoiser.config, []
    for k in range(config.num_steps):
        if config.likelihood == "joint":
            rows = torch.arange(len(latents["before"]))
            before, value = latents["before"][:, k], latents["after"][:, k]
        else:
            rows = (latents["index"] == k).nonzero().flatten()
            before, value = latents["before"][rows], latents["after"][rows]
        own = None if std is None else std[rows]
        mean, scale = transition(config, head, before, k, denoiser.block, own)
        found.append((rows, value, Independent(Normal(mean, scale), 1)))
    return found


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
    config = DenoisingConfig(noise_level=0.5, num_steps=4)
    std = noise_schedule(config) * math.sqrt(0.25)
    torch.testing.assert_close(std, torch.tensor([0.5, 0.433, 0.25, 0.144]), atol=5e-4, rtol=0)


def test_the_schedule_keeps_the_least_standard_deviation():
    config = DenoisingConfig(noise_level=0.0, minimum_std=0.03)
    torch.testing.assert_close(noise_schedule(config) * 0.5, torch.full((4,), 0.03))
    constant = DenoisingConfig(noise_level=0.3, schedule="constant")
    torch.testing.assert_close(noise_schedule(constant), torch.full((4,), 0.3))


@MODES
@SHAPES
def test_before_the_first_step_of_an_update_every_ratio_is_one(config, shape, block):
    denoiser, head = Denoiser(config, shape, block), Head(shape)
    with torch.no_grad():
        (_, old, latents), _, std = draw(denoiser, head, 512)
    assert old.shape == (512, block[0])
    index = torch.randperm(512, generator=torch.Generator().manual_seed(5))[:200]
    rows = {name: latent[index] for name, latent in latents.items()}
    own = None if std is None else std[index]
    mean, scale = denoiser.distribution(head, rows, own)
    again = normal_log_prob(denoiser.sampled_value(rows), mean, scale)
    assert torch.expm1(again - old[index]).abs().max() <= 1e-4
    changed = denoiser.distribution(Head(shape, seed=1), rows, own)
    other = normal_log_prob(denoiser.sampled_value(rows), *changed)
    assert torch.expm1(other - old[index]).abs().median() > 0.1


@MODES
@SHAPES
def test_the_likelihood_is_that_of_the_drawn_transitions(config, shape, block):
    denoiser, head = Denoiser(config, shape, block), Head(shape)
    (_, log_prob, latents), _, std = draw(denoiser, head)
    expected = torch.zeros_like(log_prob)
    for rows, value, distribution in transitions(denoiser, head, latents, std):
        expected[rows] += distribution.log_prob(value)
    torch.testing.assert_close(log_prob, expected, atol=1e-4, rtol=1e-5)


@MODES
@SHAPES
def test_the_divergence_in_closed_form_is_that_of_torch_distributions(config, shape, block):
    denoiser, head, other = Denoiser(config, shape, block), Head(shape), Head(shape, seed=1)
    (_, _, latents), _, std = draw(denoiser, head)
    other_std = None if std is None else 1.3 * std
    expected = torch.zeros(128, block[0])
    pairs = zip(
        transitions(denoiser, head, latents, std),
        transitions(denoiser, other, latents, other_std),
        strict=True,
    )
    for (rows, _, p), (_, _, q) in pairs:
        expected[rows] += kl_divergence(p, q)
    kl = normal_kl(
        *denoiser.distribution(head, latents, std),
        *denoiser.distribution(other, latents, other_std),
    )
    torch.testing.assert_close(kl, expected, atol=1e-4, rtol=1e-4)


@MODES
@SHAPES
def test_what_was_drawn_is_mean_plus_std_times_the_noise(config, shape, block):
    denoiser, head = Denoiser(config, shape, block), Head(shape)
    (_, _, latents), (_, draws), std = draw(denoiser, head)
    mean, scale = denoiser.distribution(head, latents, std)
    standard = (denoiser.sampled_value(latents) - mean) / scale
    expected = torch.cat(draws.unbind(1), dim=-1)
    assert standard.shape == (128, block[0], denoiser.num_draws * block[1])
    torch.testing.assert_close(standard, expected, atol=1e-4, rtol=1e-4)


@MODES
def test_outside_the_block_x_follows_the_flow_in_every_step(config):
    denoiser, head = Denoiser(config, (6, 5), (4, 2)), Head((6, 5))
    (x, _, latents), (x0, draws), std = draw(denoiser, head)
    dt = 1.0 / config.num_steps
    expected = x0
    for k in range(config.num_steps):
        mean, scale = transition(config, head, expected, k, (4, 2), std)
        v = head(expected, torch.full((128,), k * dt))
        is_joint = config.likelihood == "joint"
        drawn = mean + scale * draws[:, k if is_joint else 0]
        is_drawn = torch.tensor(True) if is_joint else (latents["index"] == k).view(-1, 1, 1)
        expected = expected + dt * v
        expected[:, :4, :2] = torch.where(is_drawn, drawn, expected[:, :4, :2])
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)


def test_noise_of_the_last_step_stays_in_the_block():
    config = DenoisingConfig(noisy_steps=(3,), noise_level=0.7)
    denoiser, head = Denoiser(config, (6, 5), (4, 2)), Head((6, 5))
    x0, pick = normal(0, 64, 6, 5), normal(1, 64)
    first, _, _ = denoiser.sample(head, x0, normal(2, 64, 1, 4, 2), pick)
    other, _, _ = denoiser.sample(head, x0, normal(3, 64, 1, 4, 2), pick)
    flow = denoiser.decide(head, x0)
    same = first == other
    assert not same[:, :4, :2].any()
    assert same[:, 4:].all()
    assert same[:, :, 2:].all()
    assert torch.equal(first[:, 4:], flow[:, 4:])


@JOINT
def test_a_chain_goes_from_step_to_step_and_ends_in_x(config):
    denoiser, head = Denoiser(config, (6, 5), (4, 2)), Head((6, 5))
    (x, _, latents), (x0, _), _ = draw(denoiser, head)
    before, after = latents["before"], latents["after"]
    assert torch.equal(before[:, 0], x0)
    assert torch.equal(before[:, 1:, :4, :2], after[:, :-1])
    assert torch.equal(x[:, :4, :2], after[:, -1])


GAUSSIAN_MEAN = torch.tensor([0.7, -0.3, 0.2, 0.0])
GAUSSIAN_FACTOR = torch.tensor(
    [[0.5, 0.0, 0.0, 0.0], [0.3, 0.2, 0.0, 0.0], [-0.2, 0.1, 0.4, 0.0], [0.25, 0.0, 0.2, 0.3]]
)


def gaussian_velocity(x, t):
    """E[x_1 - x_0 | x_t] of data N(m, C): m + (t C - (1 - t) I) S_t^-1 (x - t m).

    x_t = (1 - t) x_0 + t x_1 has the covariance S_t = (1 - t)^2 I + t^2 C.
    """
    time, eye = float(t[0]), torch.eye(4)
    covariance = GAUSSIAN_FACTOR @ GAUSSIAN_FACTOR.T
    marginal = (1.0 - time) ** 2 * eye + time**2 * covariance
    gain = (time * covariance - (1.0 - time) * eye) @ torch.linalg.inv(marginal)
    centred = x.flatten(1) - time * GAUSSIAN_MEAN
    return (GAUSSIAN_MEAN + centred @ gain.T).view_as(x)


@pytest.mark.parametrize("block", [(2, 2), (1, 2), (2, 1)], ids=["whole", "row", "column"])
def test_the_stochastic_step_leaves_the_marginal_of_the_flow(block):
    # One step of variance sigma^2 dt = 0.032 where x has 0.3: without the score's share of the
    # mean the standard deviation would be off by 0.03.
    num, num_steps, k = 200_000, 20, 10
    config = DenoisingConfig(num_steps=num_steps, noisy_steps=(k,), noise_level=0.8)
    denoiser = Denoiser(config, (2, 2), block)
    x0, draws = normal(0, num, 2, 2), normal(1, num, 1, *block)
    _, _, latents = denoiser.sample(gaussian_velocity, x0, draws, normal(2, num))
    before = latents["before"]
    t, dt = torch.full((num,), k / num_steps), 1.0 / num_steps
    flow = before + dt * gaussian_velocity(before, t)
    drawn = flow.clone()
    drawn[:, : block[0], : block[1]] = latents["after"]
    assert (drawn - flow).abs().mean() > 0.05
    torch.testing.assert_close(drawn.mean(0), flow.mean(0), atol=3e-3, rtol=0)
    torch.testing.assert_close(drawn.std(0), flow.std(0), atol=5e-3, rtol=0)
    torch.testing.assert_close(
        drawn.flatten(1).T.cov(), flow.flatten(1).T.cov(), atol=5e-3, rtol=0
    )


@pytest.mark.parametrize("block", [(2, 2), (1, 2)], ids=["whole", "row"])
def test_noise_in_every_step_still_ends_in_the_data(block):
    num, num_steps = 20_000, 100
    config = DenoisingConfig(likelihood="joint", num_steps=num_steps, noise_level=0.8)
    denoiser = Denoiser(config, (2, 2), block)
    x0, draws = normal(0, num, 2, 2), normal(1, num, num_steps, *block)
    x, _, _ = denoiser.sample(gaussian_velocity, x0, draws, normal(2, num))
    torch.testing.assert_close(x.flatten(1).mean(0), GAUSSIAN_MEAN, atol=0.015, rtol=0)
    expected = GAUSSIAN_FACTOR @ GAUSSIAN_FACTOR.T
    torch.testing.assert_close(x.flatten(1).T.cov(), expected, atol=0.015, rtol=0)


@MODES
def test_gradients_reach_the_head_and_the_learned_noise_but_not_the_chain(config):
    shape, block = (6, 5), (4, 2)
    denoiser, head = Denoiser(config, shape, block), Head(shape)
    x0 = normal(0, 64, *shape).requires_grad_()
    draws = normal(1, 64, denoiser.num_draws, *block)
    std = torch.full((64, *block), 0.1).requires_grad_() if config.noise == "learned" else None
    _, _, latents = denoiser.sample(head, x0, draws, normal(2, 64), std)
    assert not any(latent.requires_grad for latent in latents.values())
    mean, scale = denoiser.distribution(head, latents, std)
    normal_log_prob(denoiser.sampled_value(latents), mean, scale).sum().backward()
    assert x0.grad is None
    assert all((p.grad != 0).any() for p in head.parameters())
    if std is not None:
        # d log N / d std = (z^2 - 1) / std
        expected = ((draws.square() - 1.0) / 0.1).sum(dim=1)
        torch.testing.assert_close(std.grad, expected, atol=1e-2, rtol=1e-3)


def test_opposite_noise_has_the_same_stochastic_step():
    config = DenoisingConfig(num_steps=5, noisy_steps=(1, 2, 4))
    denoiser, head = Denoiser(config, (2, 2), (2, 2)), Head((2, 2))
    noise = normal(0, 3000, 2, 2), normal(1, 3000, 1, 2, 2), normal(2, 3000)
    index = denoiser.sample(head, *noise)[2]["index"]
    mirrored = denoiser.sample(head, *(-part for part in noise))[2]["index"]
    assert torch.equal(index, mirrored)
    shares = torch.bincount(index, minlength=5) / 3000
    torch.testing.assert_close(
        shares, torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]) / 3.0, atol=0.03, rtol=0
    )


@MODES
@SHAPES
def test_entropy_is_that_of_what_is_drawn(config, shape, block):
    denoiser = Denoiser(config, shape, block)
    is_joint = config.likelihood == "joint"
    if config.noise == "learned":
        std = 0.05 + normal(0, 7, *block).abs()
        entropy = Normal(torch.zeros(()), std).entropy().sum(-1) * (3 if is_joint else 1)
        torch.testing.assert_close(denoiser.entropy(std), entropy)
        return
    steps = Normal(torch.zeros(()), noise_schedule(config) / math.sqrt(3)).entropy() * block[1]
    torch.testing.assert_close(denoiser.entropy(), steps.sum() if is_joint else steps.mean())


@MODES
def test_with_vanishing_noise_x_is_that_of_the_flow(config):
    config = dataclasses.replace(config, noise_level=0.0, minimum_std=1e-4)
    denoiser, head = Denoiser(config, (6, 5), (4, 2)), Head((6, 5))
    x0, draws = normal(0, 32, 6, 5), normal(1, 32, denoiser.num_draws, 4, 2)
    std = torch.full((32, 4, 2), 1e-4) if config.noise == "learned" else None
    x, _, _ = denoiser.sample(head, x0, draws, normal(2, 32), std)
    torch.testing.assert_close(x, denoiser.decide(head, x0), atol=2e-3, rtol=0)


@MODES
def test_the_policy_gradient_raises_a_reward_of_the_block(config):
    shape, block = (6, 5), (4, 2)
    denoiser, head = Denoiser(config, shape, block), Head(shape)
    noise = NoiseNetwork(3, block, (0.1, 0.4), torch.Generator().manual_seed(0))
    parameters = [*head.parameters(), *noise.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    features, rewards = torch.ones(128, 3), []
    for iteration in range(60):
        std = noise(features) if config.noise == "learned" else None
        seed = 10 * iteration
        draws = normal(seed, 128, denoiser.num_draws, *block)
        with torch.no_grad():
            x, _, latents = denoiser.sample(
                head, normal(seed + 1, 128, *shape), draws, normal(seed + 2, 128), std
            )
        reward = -(x[:, :4, :2] - 0.5).square().mean(dim=(1, 2))
        rewards.append(reward.mean().item())
        advantage = (reward - reward.mean()) / reward.std()
        mean, scale = denoiser.distribution(head, latents, std)
        log_prob = normal_log_prob(denoiser.sampled_value(latents), mean, scale)
        loss = -(log_prob * advantage.unsqueeze(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sum(rewards[-5:]) / 5 > 0.5 * sum(rewards[:5]) / 5


def test_learned_noise_starts_in_the_middle_of_its_bounds_and_never_leaves_them():
    network = NoiseNetwork(5, (4, 2), (0.04, 0.16), torch.Generator().manual_seed(0))
    features = normal(0, 50, 5)
    torch.testing.assert_close(network(features), torch.full((50, 4, 2), 0.08))
    with torch.no_grad():
        network.network[-1].weight.normal_(0.0, 100.0)
    std = network(features)
    assert std.min().item() == pytest.approx(0.04)
    assert std.max().item() == pytest.approx(0.16)


@pytest.mark.parametrize("block", [(7, 2), (4, 6), (0, 2)])
def test_a_block_that_x_does_not_hold_is_refused(block):
    with pytest.raises(ConfigurationError, match=r"\(6, 5\)"):
        Denoiser(DenoisingConfig(), (6, 5), block)


def test_learned_noise_that_is_not_given_is_refused():
    denoiser = Denoiser(DenoisingConfig(noise="learned"), (2, 2), (2, 2))
    with pytest.raises(ConfigurationError, match="no standard deviation"):
        denoiser.sample(Head((2, 2)), normal(0, 3, 2, 2), normal(1, 3, 1, 2, 2), normal(2, 3))
    with pytest.raises(ConfigurationError, match="no standard deviation"):
        denoiser.entropy()


def test_a_noisy_step_beyond_the_last_is_refused():
    with pytest.raises(ConfigurationError, match="noisy_steps"):
        DenoisingConfig(num_steps=4, noisy_steps=(4,))


def test_a_joint_likelihood_is_of_every_step_whichever_a_transition_may_be():
    some, every = (
        Denoiser(DenoisingConfig(likelihood="joint", noisy_steps=steps), (2, 2), (2, 2))
        for steps in ((3,), ())
    )
    noise = normal(0, 3, 2, 2), normal(1, 3, 4, 2, 2), normal(2, 3)
    head = Head((2, 2))
    assert torch.equal(some.sample(head, *noise)[1], every.sample(head, *noise)[1])
    assert torch.equal(some.entropy(), every.entropy())


def test_learned_noise_needs_bounds_that_differ():
    assert DenoisingConfig(minimum_std=0.3).maximum_std < 0.3
    with pytest.raises(ConfigurationError, match="maximum_std"):
        DenoisingConfig(noise="learned", minimum_std=0.3)


def test_configuration_survives_the_round_trip_through_json():
    config = DenoisingConfig(likelihood="joint", noise="learned", maximum_std=0.3)
    assert typed.decode(DenoisingConfig, typed.encode(config)) == config
