from __future__ import annotations

import pytest
import torch

from grpo_ros.algorithms import BehaviourCloningConfig, fit
from grpo_ros.errors import TrainingError
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy

GAUSSIAN = GaussianConfig(hidden=(32,))
FLOW = FlowConfig(hidden=(32,))
QUICK = BehaviourCloningConfig(num_steps=60, batch_size=32, learning_rate=1e-2)


def demonstrations(num=200):
    generator = torch.Generator().manual_seed(0)
    obs = {
        "tip": torch.randn(num, 3, generator=generator) + 5.0,
        "gap": torch.randn(num, 2, generator=generator) * 0.01,
    }
    chunk = (50.0 * obs["gap"]).clamp(-1, 1).unsqueeze(1).repeat(1, 4, 1)
    return obs, chunk, torch.ones(num, 4)


def test_a_linear_demonstrator_is_reproduced(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    obs, chunk, weight = demonstrations()
    config = BehaviourCloningConfig(num_steps=400, batch_size=64, learning_rate=1e-2)
    losses = []
    fit(
        policy,
        obs,
        chunk,
        weight,
        config,
        torch.Generator().manual_seed(0),
        progress=lambda done, total, loss: losses.append(loss),
    )
    with torch.no_grad():
        assert (policy.mode(obs) - chunk).abs().mean() < 0.03
    assert len(losses) == 4 and losses[-1] < 5e-3


@pytest.mark.parametrize("config", [GAUSSIAN, FLOW])
def test_the_same_generator_gives_the_same_weights(make_contract, config):
    weights = []
    for _ in range(2):
        policy = make_policy(config, make_contract())
        fit(policy, *demonstrations(), QUICK, torch.Generator().manual_seed(7))
        weights.append(policy.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])


def test_steps_that_were_not_demonstrated_teach_nothing(make_contract):
    weights = []
    for filler in (0.0, 0.9):
        policy = make_policy(GAUSSIAN, make_contract())
        obs, chunk, weight = demonstrations()
        weight[:, 3] = 0.0
        chunk[:, 3] = filler
        fit(policy, obs, chunk, weight, QUICK, torch.Generator().manual_seed(0))
        weights.append(policy.network[-1].weight)
    assert torch.equal(*weights)


def test_progress_counts_up_to_the_last_step(make_contract):
    calls = []
    policy = make_policy(GAUSSIAN, make_contract())
    config = BehaviourCloningConfig(num_steps=25, batch_size=8, report_every=10)
    fit(
        policy,
        *demonstrations(),
        config,
        torch.Generator(),
        progress=lambda done, total, loss: calls.append((done, total)),
    )
    assert calls == [(10, 25), (20, 25), (25, 25)]


def test_the_start_is_held_at_the_last_success_not_above_the_maximum(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    config = BehaviourCloningConfig(
        num_steps=100, batch_size=8, measure_every=10, maximum_success=0.65
    )
    seen = []

    def measure():
        seen.append(policy.network[0].weight.clone())
        return (0.2, 0.5, 0.7, 0.9)[len(seen) - 1]

    fit(policy, *demonstrations(), config, torch.Generator(), measure=measure)
    assert len(seen) == 3
    assert torch.equal(policy.network[0].weight, seen[1])


def test_nothing_is_measured_where_no_maximum_is_set(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    fit(policy, *demonstrations(), QUICK, torch.Generator(), measure=lambda: pytest.fail("called"))


@pytest.mark.parametrize("where", ["obs", "chunk", "empty"])
def test_demonstrations_that_cannot_be_learned_from_are_refused(make_contract, where):
    obs, chunk, weight = demonstrations(0 if where == "empty" else 10)
    if where == "obs":
        obs["gap"][3, 1] = torch.inf
    if where == "chunk":
        chunk[0, 0, 0] = torch.nan
    with pytest.raises(TrainingError):
        fit(make_policy(GAUSSIAN, make_contract()), obs, chunk, weight, QUICK, torch.Generator())
