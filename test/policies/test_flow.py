from __future__ import annotations

import dataclasses
import itertools

import onnx
import pytest
import torch

from grpo_ros import typed
from grpo_ros.algorithms import BehaviourCloningConfig, fit
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.policies import ActionSample, FlowConfig, make_policy
from grpo_ros.policies.denoising import noise_schedule, sde_step
from grpo_ros.policies.normal import normal_log_prob

SMALL = FlowConfig(hidden=(32, 32))
CONFIGS = [
    dataclasses.replace(SMALL, likelihood=likelihood, noise=noise)
    for likelihood, noise in itertools.product(("transition", "joint"), ("fixed", "learned"))
]
MODES = pytest.mark.parametrize(
    "config", CONFIGS, ids=[f"{config.likelihood}-{config.noise}" for config in CONFIGS]
)


def observe(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "tip": torch.randn(num, 3, generator=generator),
        "gap": torch.randn(num, 2, generator=generator),
    }


def noise_of(policy, num, seed=1):
    return torch.randn(num, *policy.noise_shape, generator=torch.Generator().manual_seed(seed))


def contents(graph):
    """Operations and weights of an ONNX graph; names of tensors are counted, and say nothing."""
    return [n.op_type for n in graph.node], [(w.dims, w.raw_data) for w in graph.initializer]


def test_with_vanishing_noise_a_sample_is_the_deterministic_chunk(make_contract):
    config = FlowConfig(hidden=(32, 32), noise_level=0.0, minimum_std=1e-4)
    policy = make_policy(config, make_contract())
    obs, noise = observe(20), 0.1 * noise_of(make_policy(config, make_contract()), 20)
    chunk = policy.act(obs, noise).chunk
    torch.testing.assert_close(
        chunk.clamp(-1, 1), policy.decide(obs, noise[:, 0]), atol=1e-3, rtol=0
    )


def test_a_sample_is_that_of_one_stochastic_step_written_out(make_contract):
    config = FlowConfig(hidden=(32, 32), num_steps=5, noisy_steps=(1, 4), noise_level=0.7)
    policy = make_policy(config, make_contract())
    policy.normaliser.fit(torch.randn(50, 5, generator=torch.Generator().manual_seed(3)))
    obs, noise = observe(64), noise_of(policy, 64)
    assert policy.noise_shape == (3, 4, 2)
    with torch.no_grad():
        sample = policy.act(obs, noise)
        features = policy.normaliser(policy.features(obs))
        magnitude = noise[:, 2, 0, 0].abs()
        is_second = torch.special.ndtr(magnitude) >= 0.75
        index, sigma = torch.where(is_second, 4, 1), noise_schedule(config)
        x, log_prob = noise[:, 0], torch.zeros(64, 4)
        before, after = torch.zeros(64, 4, 2), torch.zeros(64, 4, 2)
        for k in range(5):
            v = policy.velocity(x, torch.full((64,), k / 5), features)
            mean, std = sde_step(x, v, torch.tensor(k / 5), 0.2, sigma[k])
            rows, following = index == k, x + v * 0.2
            drawn = mean + std * noise[:, 1]
            before[rows], after[rows] = x[rows], drawn[rows]
            log_prob[rows] = normal_log_prob(drawn, mean, std)[rows]
            x = torch.where(rows.view(-1, 1, 1), drawn, following)
    assert list(sample.latents) == ["index", "before", "after"]
    assert torch.equal(sample.latents["index"], index)
    assert torch.equal(sample.latents["before"], before)
    assert torch.equal(sample.latents["after"], after)
    assert torch.equal(sample.chunk, x)
    assert torch.equal(sample.log_prob, log_prob)


@MODES
def test_likelihood_right_after_acting_is_the_recorded_one(make_contract, config):
    policy = make_policy(dataclasses.replace(config, hidden=(192, 192)), make_contract())
    policy.normaliser.fit(torch.randn(50, 5) * 3.0 + 1.0)
    obs = observe(256)
    with torch.no_grad():
        sample = policy.act(obs, noise_of(policy, 256))
        again = policy.log_prob(obs, sample)
    assert sample.log_prob.shape == (256, 4)
    torch.testing.assert_close(again, sample.log_prob, atol=2e-6, rtol=1e-6)


@MODES
def test_what_was_drawn_is_mean_plus_std_times_the_step_noise(make_contract, config):
    policy = make_policy(config, make_contract())
    obs, noise = observe(64), noise_of(policy, 64)
    sample = policy.act(obs, noise)
    mean, std = policy.distribution(obs, sample)
    standard = (policy.sampled_value(sample) - mean) / std
    expected = torch.cat(noise[:, 1:-1].unbind(1), dim=-1)
    assert standard.shape == (64, 4, 8 if config.likelihood == "joint" else 2)
    torch.testing.assert_close(standard, expected, atol=1e-4, rtol=1e-4)


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


@MODES
def test_a_sample_depends_on_its_own_noise_alone(make_contract, config):
    policy = make_policy(config, make_contract())
    obs, noise = observe(8), noise_of(policy, 8)
    altered = noise.clone()
    altered[1:] = 0.0
    first, second = policy.act(obs, noise), policy.act(obs, altered)
    assert torch.equal(first.chunk[0], second.chunk[0])
    for name, latent in first.latents.items():
        assert torch.equal(latent[0], second.latents[name][0]), name
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


@pytest.mark.parametrize("likelihood", ["transition", "joint"])
def test_entropy_of_learned_noise_is_that_of_its_network(make_contract, likelihood):
    config = dataclasses.replace(SMALL, likelihood=likelihood, noise="learned")
    policy = make_policy(config, make_contract())
    with torch.no_grad():
        policy.noise_network.network[-1].weight.normal_()
        std = policy.noise_network(policy.normaliser(policy.features(observe(3))))
    per_step = torch.distributions.Normal(0.0, std).entropy().sum(-1).mean(-1)
    expected = per_step * (4 if likelihood == "joint" else 1)
    entropy = policy.entropy(observe(3))
    torch.testing.assert_close(entropy, expected)
    entropy.sum().backward()
    assert (policy.noise_network.network[-1].bias.grad > 0.0).all()


def test_the_policy_gradient_reaches_the_learned_noise(make_contract):
    policy = make_policy(dataclasses.replace(SMALL, noise="learned"), make_contract())
    obs, noise = observe(64), noise_of(policy, 64)
    noise[:, 1] *= 3.0  # what was drawn lies far out, so that a wider normal is likelier
    sample = policy.act(obs, noise)
    policy.log_prob(obs, sample).sum().backward()
    assert (policy.noise_network.network[-1].bias.grad > 0.0).all()
    assert all(p.grad is not None for p in policy.parameters())


@pytest.mark.parametrize("likelihood", ["transition", "joint"])
def test_cloning_and_deployment_are_blind_to_learned_noise(make_contract, likelihood, tmp_path):
    settings = BehaviourCloningConfig(num_steps=20)
    policies = [
        make_policy(
            dataclasses.replace(SMALL, likelihood=likelihood, noise=noise), make_contract()
        )
        for noise in ("fixed", "learned")
    ]
    for policy in policies:
        generator = torch.Generator().manual_seed(0)
        chunk = torch.randn(64, 4, 2, generator=generator).tanh()
        fit(policy, observe(64), chunk, torch.ones(64, 4), settings, generator)
        export_policy(policy, policy.contract, tmp_path / f"{policy.config.noise}.onnx")
    plain, learned = policies
    std = learned.noise_network(learned.features(observe(9)))
    torch.testing.assert_close(std, torch.full_like(std, (0.02 * 0.16) ** 0.5))
    assert torch.equal(plain.mode(observe(9)), learned.mode(observe(9)))
    graphs = [onnx.load(tmp_path / f"{name}.onnx").graph for name in ("fixed", "learned")]
    nodes, weights = zip(*(contents(graph) for graph in graphs), strict=True)
    assert nodes[0] == nodes[1]
    assert weights[0] == weights[1]


def test_flow_matching_learns_two_modes_that_a_mean_would_merge(make_contract):
    policy = make_policy(FlowConfig(hidden=(64, 64), num_steps=8), make_contract(1, 1))
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    seen = {"tip": torch.zeros(256, 3), "gap": torch.zeros(256, 2)}
    chunk = torch.where(torch.arange(256).view(-1, 1, 1) % 2 == 0, 0.7, -0.7)
    for _ in range(1000):
        loss = policy.cloning_error(seen, chunk, policy.cloning_noise(256, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    obs = {"tip": torch.zeros(400, 3), "gap": torch.zeros(400, 2)}
    with torch.no_grad():
        drawn = policy.decide(obs, torch.randn(400, 1, 1, generator=generator)).flatten()
    assert ((drawn.abs() - 0.7).abs() < 0.25).float().mean() > 0.85
    assert (drawn > 0).float().mean().item() == pytest.approx(0.5, abs=0.15)


def test_the_cloning_error_of_a_step_moves_no_steps_that_were_not_demonstrated(make_contract):
    policy = make_policy(SMALL, make_contract())
    noise = policy.cloning_noise(8, torch.Generator().manual_seed(0))
    error = policy.cloning_error(observe(8), torch.zeros(8, 4, 2), noise)
    gradient = torch.autograd.grad(error[:, :2].mean(), policy.network[-1].bias)[0].view(4, 2)
    assert (gradient[2:] == 0.0).all()
    assert (gradient[:2] != 0.0).all()


def test_configuration_survives_the_round_trip_through_json():
    config = FlowConfig(hidden=(8, 8), noisy_steps=(0, 2), schedule="constant", noise="learned")
    assert typed.decode(FlowConfig, typed.encode(config)) == config
