from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from grpo_ros import typed
from grpo_ros.contract import ObservationField, Source
from grpo_ros.errors import ContractError
from grpo_ros.policies import GaussianConfig, make_policy

SMALL = GaussianConfig(hidden=(16, 16))


def observe(num, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "tip": torch.randn(num, 3, generator=generator),
        "gap": torch.randn(num, 2, generator=generator),
    }


def noise_of(policy, num, seed=1):
    return torch.randn(num, *policy.noise_shape, generator=torch.Generator().manual_seed(seed))


def test_weights_come_from_the_generator_alone(make_contract):
    before = torch.get_rng_state()
    first, second = (
        make_policy(SMALL, make_contract(), torch.Generator().manual_seed(3)) for _ in range(2)
    )
    other = make_policy(SMALL, make_contract(), torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


def test_without_noise_the_sample_is_the_mean(make_contract):
    policy = make_policy(SMALL, make_contract())
    obs = observe(5)
    sample = policy.act(obs, torch.zeros(5, 4, 2))
    assert torch.equal(sample.chunk, policy.mean(policy.features(obs)))


def test_log_prob_is_that_of_torch_distributions(make_contract):
    policy = make_policy(SMALL, make_contract())
    obs = observe(5)
    sample = policy.act(obs, noise_of(policy, 5))
    mean, std = policy.distribution(obs, sample)
    expected = torch.distributions.Normal(mean, std).log_prob(sample.chunk).sum(-1)
    torch.testing.assert_close(sample.log_prob, expected)
    assert sample.log_prob.shape == (5, 4)


def test_likelihood_right_after_acting_is_the_recorded_one(make_contract):
    policy = make_policy(GaussianConfig(), make_contract())
    policy.normaliser.fit(torch.randn(50, 5) * 3.0 + 1.0)
    obs = observe(256)
    with torch.no_grad():
        sample = policy.act(obs, noise_of(policy, 256))
        again = policy.log_prob(obs, sample)
    torch.testing.assert_close(again, sample.log_prob, atol=1e-6, rtol=0)


def test_mode_is_the_clamped_mean(make_contract):
    policy = make_policy(SMALL, make_contract())
    with torch.no_grad():
        policy.network[-1].bias[0] = 5.0
    obs = observe(6)
    mode = policy.mode(obs)
    assert (mode[:, 0, 0] == 1.0).all()
    assert torch.equal(mode, policy.mean(policy.features(obs)).clamp(-1, 1))


def test_entropy_is_that_of_one_step_of_the_chunk(make_contract):
    policy = make_policy(GaussianConfig(initial_std=0.3), make_contract(action_size=3))
    expected = torch.distributions.Normal(torch.zeros(3), 0.3).entropy().sum()
    torch.testing.assert_close(policy.entropy(observe(2)), expected.expand(2))


def test_cloning_moves_the_mean_and_leaves_the_spread(make_contract):
    policy = make_policy(SMALL, make_contract())
    policy.cloning_error(observe(8), torch.ones(8, 4, 2), {}).mean().backward()
    assert policy.log_std.grad is None
    assert policy.network[-1].weight.grad.abs().max() > 0


def test_the_cloning_error_of_a_step_is_not_of_steps_that_were_not_demonstrated(make_contract):
    policy = make_policy(SMALL, make_contract())
    obs, chunk = observe(8), torch.zeros(8, 4, 2)
    altered = chunk.clone()
    altered[:, 2:] = 99.0
    error, other = (policy.cloning_error(obs, each, {}) for each in (chunk, altered))
    assert torch.equal(error[:, :2], other[:, :2]) and (error[:, 2:] < other[:, 2:]).all()


def test_spread_is_held_to_its_range(make_contract):
    policy = make_policy(GaussianConfig(minimum_std=0.05, maximum_std=0.5), make_contract())
    with torch.no_grad():
        policy.log_std.copy_(torch.tensor([-20.0, 20.0]))
    policy.constrain()
    torch.testing.assert_close(policy.std(), torch.tensor([0.05, 0.5]))


def test_a_contract_with_images_is_refused(make_contract):
    contract = make_contract()
    camera = ObservationField("wrist", (8, 8, 3), Source("camera"), dtype="uint8")
    contract = dataclasses.replace(contract, observation=(*contract.observation, camera))
    with pytest.raises(ContractError, match="wrist"):
        make_policy(SMALL, contract)


def test_configuration_survives_the_round_trip_through_json():
    config = GaussianConfig(hidden=(8,), initial_std=0.2)
    assert typed.decode(GaussianConfig, typed.encode(config)) == config


@pytest.mark.parametrize(
    ("activation", "kind"), [("silu", nn.SiLU), ("tanh", nn.Tanh), ("elu", nn.ELU)]
)
def test_the_activation_is_a_setting(make_contract, activation, kind):
    policy = make_policy(GaussianConfig(hidden=(8, 8), activation=activation), make_contract())
    assert [type(layer) for layer in policy.network[1::2]] == [kind, kind]
