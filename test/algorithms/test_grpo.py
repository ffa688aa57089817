from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from bandit import GROUP_SIZE, NUM_GROUPS, roll_out, same, weights

from grpo_ros import typed
from grpo_ros.algorithms import GrpoConfig, make_algorithm
from grpo_ros.algorithms.adaptive_rate import AdaptiveRate
from grpo_ros.algorithms.batch import minibatches
from grpo_ros.errors import CheckpointError, ConfigurationError, TrainingError
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy
from grpo_ros.randomness import Key

GAUSSIAN = GaussianConfig(hidden=(16,), initial_std=0.3)
FLOW = FlowConfig(hidden=(16,), noise_level=0.5)
POLICIES = pytest.mark.parametrize("policy_config", [GAUSSIAN, FLOW], ids=["gaussian", "flow"])
LEARNED = dataclasses.replace(FLOW, noise="learned", minimum_std=0.1, maximum_std=0.4)
FLOWS = pytest.mark.parametrize(
    "policy_config",
    [
        dataclasses.replace(config, likelihood=likelihood)
        for config in (FLOW, LEARNED)
        for likelihood in ("transition", "joint")
    ],
    ids=["transition-fixed", "joint-fixed", "transition-learned", "joint-learned"],
)
CONFIG = GrpoConfig(minibatch_size=64, num_epochs=3, learning_rate=3e-3, warmup_steps=0)


@POLICIES
def test_the_better_action_becomes_likelier_in_both_states(make_contract, policy_config):
    policy = make_policy(policy_config, make_contract())
    config = dataclasses.replace(CONFIG, learning_rate=1e-2, maximum_learning_rate=1e-2)
    algorithm = make_algorithm(config, policy)
    rates = []
    for iteration in range(40):
        rollout = roll_out(policy, iteration)
        rates.append(rollout.outcome.mean().item())
        algorithm.update(rollout, Key(0, iteration))
    by_state = roll_out(policy, 99).outcome.view(NUM_GROUPS, GROUP_SIZE).mean(1)
    assert rates[0] < 0.6
    assert by_state[0::2].mean() > 0.8
    assert by_state[1::2].mean() > 0.8


@FLOWS
def test_a_flow_head_learns_in_every_mode(make_contract, policy_config):
    policy = make_policy(policy_config, make_contract())
    config = dataclasses.replace(
        CONFIG, learning_rate=1e-2, maximum_learning_rate=1e-2, reference_kl_coefficient=1e-3
    )
    algorithm = make_algorithm(config, policy)
    rates, before = [], weights(policy)
    for iteration in range(40):
        rollout = roll_out(policy, iteration)
        rates.append(rollout.outcome.mean().item())
        metrics = algorithm.update(rollout, Key(0, iteration))
        assert metrics["first_minibatch_ratio_error"] <= 1e-4
    assert rates[0] < 0.6
    assert sum(rates[-5:]) / 5 > 0.75
    after = policy.state_dict()
    trained = [
        name for name, _ in policy.named_parameters() if not same({name: before[name]}, after)
    ]
    assert any(name.startswith("noise_network") for name in trained) == (
        policy_config.noise == "learned"
    )


@POLICIES
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_where_all_groups_agree_nothing_changes(make_contract, policy_config, outcome):
    policy = make_policy(policy_config, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    algorithm.update(roll_out(policy), Key(0, 0))  # Adam's momentum alone would move on
    before, state = weights(policy), algorithm.state_dict()
    agreed = roll_out(policy, 1, torch.full((64,), outcome))
    metrics = algorithm.update(agreed, Key(0, 1))
    assert same(before, policy.state_dict())
    after = algorithm.state_dict()
    assert all(torch.equal(v, after[n]) for n, v in state.items() if n != "num_updates")
    assert metrics["gradient_steps"] == 0
    assert metrics["zero_variance_fraction"] == 1.0
    assert metrics["all_fail_fraction"] == 1.0 - outcome
    assert metrics["all_success_fraction"] == outcome
    assert metrics["first_minibatch_ratio_error"] <= 1e-4


@POLICIES
def test_a_group_that_agrees_adds_nothing_to_the_update(make_contract, policy_config):
    # Same rewards; the members of the group that agrees did something else in one of the two.
    results = []
    for shift in (0.0, 0.05):
        policy = make_policy(policy_config, make_contract())
        rollout = roll_out(policy)
        outcome = rollout.outcome.clone()
        outcome[:GROUP_SIZE] = 0.0
        chunk = rollout.sample.chunk.clone()
        chunk[:GROUP_SIZE] += shift
        latents = {n: v.clone() for n, v in rollout.sample.latents.items()}
        if "after" in latents:
            latents["after"][:GROUP_SIZE] += shift
        altered = dataclasses.replace(rollout.sample, chunk=chunk, latents=latents)
        flat = altered.flatten()
        obs = {n: v.flatten(0, 1) for n, v in rollout.obs.items()}
        with torch.no_grad():
            log_prob = policy.log_prob(obs, flat).view(rollout.sample.log_prob.shape)
        sample = dataclasses.replace(altered, log_prob=log_prob)
        rollout = dataclasses.replace(rollout, outcome=outcome, sample=sample)
        config = dataclasses.replace(CONFIG, kl_target=0.0)
        make_algorithm(config, policy).update(rollout, Key(0, 0))
        results.append(weights(policy))
    assert same(*results)


@POLICIES
def test_the_first_ratio_is_one_after_collection(make_contract, policy_config):
    policy = make_policy(policy_config, make_contract())
    metrics = make_algorithm(CONFIG, policy).update(roll_out(policy), Key(0))
    assert metrics["first_minibatch_ratio_error"] <= 1e-4


def test_a_policy_that_changed_since_collection_stops_training_with_the_reason(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = roll_out(policy)
    policy.normaliser.fit(torch.randn(10, 5))
    before = weights(policy)
    with pytest.raises(TrainingError, match=r"off by.*normaliser changed"):
        make_algorithm(CONFIG, policy).update(rollout, Key(0))
    assert same(before, policy.state_dict())


def test_parameters_that_are_not_finite_stop_training_and_are_named(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = roll_out(policy)
    with torch.no_grad():
        policy.log_std[0] = torch.nan
    with pytest.raises(TrainingError, match="log_std"):
        make_algorithm(CONFIG, policy).update(rollout, Key(0))


@POLICIES
@pytest.mark.parametrize("what", ["obs", "chunk", "log_prob"])
def test_a_decision_that_is_not_finite_is_masked_and_counted(make_contract, policy_config, what):
    policy = make_policy(policy_config, make_contract())
    rollout = roll_out(policy)
    target = {
        "obs": rollout.obs["tip"],
        "chunk": rollout.sample.chunk,
        "log_prob": rollout.sample.log_prob,
    }[what]
    target[3, 1] = torch.nan
    target[9, 0] = torch.inf
    metrics = make_algorithm(CONFIG, policy).update(rollout, Key(0))
    assert metrics["masked_rows"] == 2
    assert metrics["gradient_steps"] > 0
    assert all(torch.isfinite(p).all() for p in policy.parameters())


def test_a_reward_that_is_not_finite_masks_its_member_and_is_counted(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = roll_out(policy)
    rollout.outcome[3] = torch.nan
    metrics = make_algorithm(CONFIG, policy).update(rollout, Key(0))
    assert metrics["masked_rewards"] == 1
    assert metrics["gradient_steps"] > 0
    assert all(torch.isfinite(p).all() for p in policy.parameters())


@POLICIES
def test_what_lies_beyond_the_end_of_an_episode_does_not_matter(make_contract, policy_config):
    results = []
    for filler in (0.0, 77.0, torch.nan):
        policy = make_policy(policy_config, make_contract())
        rollout = roll_out(policy)
        rollout.executed[::3, 1] = False
        rollout.executed[1::3, 1, 2:] = False
        rollout.obs["tip"][::3, 1] = filler
        rollout.sample.chunk[::3, 1] = filler
        rollout.reward_terms[::3, 1] = filler
        config = dataclasses.replace(
            CONFIG, objectives=("outcome", "effort"), objective_weights=(1, 1)
        )
        metrics = make_algorithm(config, policy).update(rollout, Key(0))
        assert metrics["masked_rows"] == 0
        assert metrics["masked_rewards"] == 0
        results.append(weights(policy))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_gradients_that_are_not_finite_never_reach_the_optimiser(make_contract, monkeypatch):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    rollout = roll_out(policy)
    before = weights(policy)
    calls = []

    def poison(gradient):
        calls.append(None)
        return gradient * torch.nan if len(calls) % 2 else gradient

    policy.network[0].weight.register_hook(poison)
    metrics = algorithm.update(rollout, Key(0))
    assert metrics["skipped_non_finite"] > 0
    assert metrics["gradient_steps"] > 0
    assert all(torch.isfinite(p).all() for p in policy.parameters())
    policy.network[0].bias.register_hook(lambda gradient: gradient * torch.nan)
    before = weights(policy)
    with pytest.raises(TrainingError, match="not finite in all"):
        algorithm.update(roll_out(policy, 1), Key(0, 1))
    assert same(before, policy.state_dict())


@POLICIES
def test_an_update_after_save_and_load_is_the_same_bit_for_bit(make_contract, policy_config):
    config = dataclasses.replace(CONFIG, reference_kl_coefficient=0.01)
    policy = make_policy(policy_config, make_contract())
    algorithm = make_algorithm(config, policy)
    for iteration in range(2):
        algorithm.update(roll_out(policy, iteration), Key(0, iteration))
    saved_policy, saved = weights(policy), copy.deepcopy(algorithm.state_dict())
    rollout = roll_out(policy, 2)
    metrics = algorithm.update(rollout, Key(0, 2))

    resumed = make_policy(policy_config, make_contract(), torch.Generator().manual_seed(123))
    second = make_algorithm(config, resumed)
    resumed.load_state_dict(saved_policy)
    second.load_state_dict(saved)
    assert second.update(rollout, Key(0, 2)) == metrics
    assert same(weights(policy), resumed.state_dict())
    assert same(algorithm.state_dict(), second.state_dict())


def test_a_state_before_any_update_can_be_loaded(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    fresh = algorithm.state_dict()
    algorithm.update(roll_out(policy), Key(0))
    algorithm.load_state_dict(fresh)
    assert same(fresh, algorithm.state_dict())
    assert algorithm.state_dict().keys() == fresh.keys()


@pytest.mark.parametrize("damage", ["missing", "left_over", "shape", "reference"])
def test_a_state_that_does_not_fit_is_refused(make_contract, damage):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    algorithm.update(roll_out(policy), Key(0))
    state = algorithm.state_dict()
    if damage == "missing":
        del state["adam/log_std/exp_avg"]
    elif damage == "left_over":
        state["adam/nobody/exp_avg"] = torch.zeros(1)
    elif damage == "shape":
        state["adam/log_std/exp_avg"] = torch.zeros(7)
    else:
        state["reference/log_std"] = torch.zeros(2)
    with pytest.raises(CheckpointError):
        algorithm.load_state_dict(state)


def test_the_learning_rate_follows_the_divergence(make_contract):
    rates = {}
    for target in (1e-6, 100.0, 0.0):
        policy = make_policy(GAUSSIAN, make_contract())
        config = dataclasses.replace(CONFIG, kl_target=target, maximum_learning_rate=1e-2)
        algorithm = make_algorithm(config, policy)
        algorithm.update(roll_out(policy), Key(0))
        metrics = algorithm.update(roll_out(policy, 1), Key(0, 1))
        rates[target] = metrics["learning_rate"] / CONFIG.learning_rate
    assert rates[1e-6] == pytest.approx(1.0 / 1.5)
    assert rates[0.0] == 1.0
    assert rates[100.0] == pytest.approx(1.1)


def test_the_learning_rate_stays_within_its_bounds():
    rate = AdaptiveRate(rate=1e-3, target=0.2, minimum=9e-4, maximum=1.05e-3)
    rate.adapt(10.0)
    assert rate.rate == 9e-4
    for _ in range(3):
        rate.adapt(0.0)
    assert rate.rate == 1.05e-3
    rate.adapt(0.2)
    assert rate.rate == 1.05e-3
    with pytest.raises(ConfigurationError, match="learning_rate"):
        GrpoConfig(learning_rate=1.0)


def test_a_policy_that_has_moved_too_far_stops_taking_steps(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    config = dataclasses.replace(
        CONFIG, learning_rate=0.05, maximum_learning_rate=0.05, kl_target=0.01
    )
    metrics = make_algorithm(config, policy).update(roll_out(policy), Key(0))
    assert metrics["skipped_too_far"] > 0
    assert metrics["gradient_steps"] + metrics["skipped_too_far"] == CONFIG.num_epochs
    assert metrics["gradient_steps"] > 0


def test_the_first_steps_of_adam_are_held_back(make_contract):
    divergences = []
    for num_steps in (0, 50):
        policy = make_policy(GAUSSIAN, make_contract())
        config = dataclasses.replace(CONFIG, warmup_steps=num_steps, kl_target=0.0)
        metrics = make_algorithm(config, policy).update(roll_out(policy), Key(0))
        divergences.append(metrics["approx_kl"])
    assert divergences[1] < 0.01 * divergences[0]


def test_pulling_to_the_reference_keeps_the_policy_nearer_to_it(make_contract):
    distances = []
    for coefficient in (0.0, 100.0):
        policy = make_policy(GAUSSIAN, make_contract())
        start = weights(policy)
        config = dataclasses.replace(
            CONFIG, reference_kl_coefficient=coefficient, kl_target=0.0, num_epochs=6
        )
        algorithm = make_algorithm(config, policy)
        assert (algorithm.gradient.reference is None) == (coefficient == 0.0)
        algorithm.update(roll_out(policy), Key(0))
        obs = {"tip": torch.ones(1, 3), "gap": torch.zeros(1, 2)}
        mean = policy.mode(obs)
        policy.load_state_dict(start)
        distances.append((mean - policy.mode(obs)).norm().item())
    assert distances[1] < 0.5 * distances[0]


def test_an_entropy_bonus_widens_the_spread(make_contract):
    stds = []
    for coefficient in (0.0, 1.0):
        policy = make_policy(GAUSSIAN, make_contract())
        config = dataclasses.replace(CONFIG, entropy_coefficient=coefficient)
        make_algorithm(config, policy).update(roll_out(policy), Key(0))
        stds.append(policy.std().mean().item())
    assert stds[1] > stds[0]


def test_every_row_is_in_exactly_one_minibatch_and_weight_is_shared_out():
    has_weight = torch.arange(1000) % 3 == 0
    parts = minibatches(has_weight, 100, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(parts).tolist()) == list(range(1000))
    counts = [int(has_weight[part].sum()) for part in parts]
    assert len(parts) == 3
    assert max(counts) - min(counts) <= 1


def test_all_masked_rows_still_make_one_minibatch():
    parts = minibatches(torch.zeros(10, dtype=torch.bool), 4, torch.Generator())
    assert [len(part) for part in parts] == [10]


def test_reward_terms_can_be_objectives_and_unknown_ones_are_named(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = roll_out(policy, outcome=torch.zeros(64))
    rollout.reward_terms[:, :, :, 0] = -rollout.sample.chunk.square().mean(-1)
    config = dataclasses.replace(CONFIG, objectives=("effort",))
    metrics = make_algorithm(config, policy).update(rollout, Key(0))
    assert metrics["zero_variance_fraction"] == 0.0
    assert metrics["all_fail_fraction"] == 1.0
    assert metrics["gradient_steps"] > 0
    with pytest.raises(ConfigurationError, match="did you mean 'effort'"):
        config = dataclasses.replace(CONFIG, objectives=("efort",))
        make_algorithm(config, policy).update(roll_out(policy), Key(0))
    with pytest.raises(ConfigurationError, match="its setting `rewards`"):  # before any rollout
        make_algorithm(config, policy, reward_names=("outcome", "effort"))


def test_several_objectives_are_normalised_before_they_are_added(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = roll_out(policy)
    rollout.reward_terms[:, :, :, 0] = -1000.0 * rollout.sample.chunk.square().mean(-1)
    config = dataclasses.replace(
        CONFIG,
        objectives=("outcome", "effort"),
        objective_weights=(1.0, 0.5),
        combine="normalise_then_sum",
    )
    metrics = make_algorithm(config, policy).update(rollout, Key(0))
    assert metrics["advantage_std"] == pytest.approx(1.0, abs=1e-3)
    assert metrics["advantage_max"] < 5.0


def test_groups_of_one_are_refused(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = dataclasses.replace(roll_out(policy), num_groups=64, group_size=1)
    with pytest.raises(TrainingError, match="group_size"):
        make_algorithm(CONFIG, policy).update(rollout, Key(0))


def test_objectives_and_weights_must_match():
    with pytest.raises(ConfigurationError, match="objective_weights"):
        GrpoConfig(objectives=("outcome", "score"))


def test_configuration_survives_the_round_trip_through_json():
    config = GrpoConfig(ratio="chunk", clip_high=0.28)
    assert typed.decode(GrpoConfig, typed.encode(config)) == config
