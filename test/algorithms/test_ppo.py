"""PPO: critic and policy improve, a cut episode keeps its future, a resume is exact."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from bandit import roll_out, same, weights

from grpo_ros.algorithms import PpoConfig, make_algorithm, value_learner
from grpo_ros.algorithms.objectives import objective_steps
from grpo_ros.algorithms.value_learner import CriticConfig, value_loss
from grpo_ros.errors import CheckpointError, ConfigurationError, TrainingError
from grpo_ros.policies import FlowConfig, GaussianConfig, make_policy
from grpo_ros.randomness import Key

GAUSSIAN = GaussianConfig(hidden=(16,), initial_std=0.3)
FLOW = FlowConfig(hidden=(16,), noise_level=0.5)
CRITIC = CriticConfig(hidden=(16,), learning_rate=1e-2, minibatch_size=64, clip=0.0)
CONFIG = PpoConfig(
    minibatch_size=64, num_epochs=3, learning_rate=3e-3, warmup_steps=0, critic=CRITIC
)


@pytest.mark.parametrize("policy_config", [GAUSSIAN, FLOW], ids=["gaussian", "flow"])
def test_the_better_action_becomes_likelier(make_contract, policy_config):
    policy = make_policy(policy_config, make_contract())
    config = dataclasses.replace(CONFIG, learning_rate=1e-2, maximum_learning_rate=1e-2)
    algorithm = make_algorithm(config, policy)
    rates = []
    for iteration in range(40):
        rollout = roll_out(policy, iteration)
        rates.append(rollout.outcome.mean().item())
        metrics = algorithm.update(rollout, Key(0, iteration))
    assert rates[0] < 0.6
    assert sum(rates[-5:]) / 5 > 0.8
    assert metrics["first_minibatch_ratio_error"] <= 1e-4


def test_the_critic_learns_which_state_is_better(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    config = dataclasses.replace(CONFIG, learning_rate=0.0, kl_target=0.0)
    algorithm = make_algorithm(config, policy)
    rollout = roll_out(policy)
    outcome = (rollout.obs["tip"][:, 0, 0] > 0).float()  # decided by the state alone
    rollout = dataclasses.replace(
        rollout, outcome=outcome, terminated=outcome < 2, truncated=outcome > 2
    )
    before = algorithm.update(rollout, Key(0, 0))
    for iteration in range(1, 15):
        after = algorithm.update(rollout, Key(0, iteration))
    assert before["explained_variance"] < 0.1
    assert after["explained_variance"] > 0.95
    assert after["value_loss"] < 0.1 * before["value_loss"]


def test_a_critic_that_its_last_step_spoils_is_an_error(make_contract, monkeypatch):
    """Regression: no decision was valid from then on, and the run went on without learning."""

    def spoil(parameters, _):
        for parameter in parameters:
            parameter.grad.fill_(torch.nan)

    monkeypatch.setattr(value_learner, "clip_gradients", spoil)
    policy = make_policy(GAUSSIAN, make_contract())
    once = dataclasses.replace(CRITIC, num_epochs=1, minibatch_size=10_000)
    algorithm = make_algorithm(dataclasses.replace(CONFIG, critic=once), policy)
    with pytest.raises(TrainingError, match="critic is not finite"):
        algorithm.update(roll_out(policy), Key(0, 0))


@pytest.mark.parametrize(
    ("time_limit", "objectives", "has_future"),
    [
        ("auto", ("outcome",), False),
        ("auto", ("score",), False),
        ("auto", ("effort",), True),
        ("auto", ("outcome", "effort"), False),
        ("bootstrap", ("outcome",), True),
        ("end", ("effort",), False),
    ],
)
def test_a_cut_episode_has_a_future_unless_its_outcome_is_verified_by_then(
    make_contract, time_limit, objectives, has_future
):
    policy = make_policy(GAUSSIAN, make_contract())
    weights = (1.0,) * len(objectives)
    config = dataclasses.replace(
        CONFIG, time_limit=time_limit, objectives=objectives, objective_weights=weights
    )
    algorithm = make_algorithm(config, policy)
    torch.nn.init.constant_(algorithm.critic.network[-1].bias, 2.0)
    torch.nn.init.zeros_(algorithm.critic.network[-1].weight)
    rollout = roll_out(policy, outcome=torch.zeros(64))
    terminated = torch.arange(64) < 32
    rollout = dataclasses.replace(rollout, terminated=terminated, truncated=~terminated)
    judged = algorithm.estimator.judge(rollout)
    gamma = CONFIG.discount**policy.contract.chunk_size
    last = judged.advantages[:, -1]
    torch.testing.assert_close(last[terminated], torch.full((32,), -2.0))
    expected = 2.0 * gamma - 2.0 if has_future else -2.0
    torch.testing.assert_close(last[~terminated], torch.full((32,), expected))


def test_a_critic_is_told_the_time_where_its_limit_is_the_end(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    rollout = roll_out(policy)
    late = dataclasses.replace(rollout, step_count=rollout.step_count + 40)
    for time_limit, more in (("end", 1), ("bootstrap", 0)):
        algorithm = make_algorithm(dataclasses.replace(CONFIG, time_limit=time_limit), policy)
        early_values, late_values = (
            algorithm.estimator.judge(each).values for each in (rollout, late)
        )
        assert algorithm.critic.network[0].in_features == policy.num_features + more
        assert torch.equal(early_values, late_values) == (more == 0)


def test_time_is_counted_from_the_beginning_of_the_episode(make_contract):
    rollout = roll_out(make_policy(GAUSSIAN, make_contract()))
    executed = rollout.executed.clone()
    executed[0, 1], executed[0, 0, 2:] = False, False
    began = torch.zeros(64, dtype=torch.long)
    began[0] = 10
    rollout = dataclasses.replace(rollout, executed=executed, step_count=began, time_limit=20)
    assert rollout.time_passed()[0].tolist() == pytest.approx([0.5, 0.6, 0.6])
    assert rollout.time_passed()[1].tolist() == pytest.approx([0.0, 0.2, 0.4])


def test_what_a_short_episode_never_saw_has_no_weight(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    rollout = roll_out(policy)
    executed = rollout.executed.clone()
    executed[:32, 1] = False
    executed[:32, 0, 2:] = False
    rollout = dataclasses.replace(rollout, executed=executed)
    judged = algorithm.estimator.judge(rollout)
    assert not judged.valid[:32, 1].any() and judged.valid[:32, 0].all()
    assert judged.advantages[:32, 1].tolist() == [0.0] * 32


def test_an_episode_with_a_reward_that_is_not_finite_is_left_out(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    rollout = roll_out(policy)
    outcome = rollout.outcome.clone()
    outcome[5] = torch.nan
    metrics = algorithm.update(dataclasses.replace(rollout, outcome=outcome), Key(0))
    assert metrics["gradient_steps"] > 0
    for value in (*policy.parameters(), *algorithm.state_dict().values()):
        assert torch.isfinite(value).all()


def test_outcome_and_score_are_earned_with_the_last_executed_step(make_contract):
    rollout = roll_out(make_policy(GAUSSIAN, make_contract()), outcome=torch.full((64,), 0.7))
    executed = rollout.executed.clone()
    executed[0, 1], executed[0, 0, 2:] = False, False
    rollout = dataclasses.replace(rollout, executed=executed)
    steps = objective_steps(rollout, "outcome")
    assert steps[0].flatten().nonzero().flatten().tolist() == [1]
    assert steps[1].flatten().nonzero().flatten().tolist() == [7]
    assert steps.sum(dim=(1, 2)).tolist() == pytest.approx([0.7] * 64)
    with pytest.raises(ConfigurationError, match="did you mean 'effort'"):
        objective_steps(rollout, "efort")


def test_a_clipped_value_gains_nothing_by_moving_on():
    values = torch.tensor([0.1, 0.5, -0.5], requires_grad=True)
    old, returns = torch.zeros(3), torch.tensor([1.0, 1.0, 1.0])
    loss = value_loss(values, old, returns, 0.2)
    # 0.81; held at 0.2: 0.64; max((-0.5-1)^2, (-0.2-1)^2) = 2.25.
    assert loss.tolist() == pytest.approx([0.81, 0.64, 2.25])
    loss.sum().backward()
    assert values.grad.tolist() == pytest.approx([-1.8, 0.0, -3.0])


def test_a_resumed_update_continues_bit_for_bit(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    algorithm = make_algorithm(CONFIG, policy)
    algorithm.update(roll_out(policy, 0), Key(0, 0))
    other = make_policy(GAUSSIAN, make_contract())
    other.load_state_dict(weights(policy))
    resumed = make_algorithm(CONFIG, other, torch.Generator().manual_seed(9))
    resumed.load_state_dict(algorithm.state_dict())
    for each, its_policy in ((algorithm, policy), (resumed, other)):
        each.update(roll_out(its_policy, 1), Key(0, 1))
    assert same(weights(policy), weights(other))
    assert same(algorithm.state_dict(), resumed.state_dict())


def test_a_checkpoint_with_another_critic_is_refused(make_contract):
    policy = make_policy(GAUSSIAN, make_contract())
    state = make_algorithm(CONFIG, policy).state_dict()
    wider = dataclasses.replace(CONFIG, critic=dataclasses.replace(CRITIC, hidden=(32,)))
    with pytest.raises(CheckpointError, match="critic"):
        make_algorithm(wider, policy).load_state_dict(state)


def test_a_critic_of_ten_million_parameters_is_a_setting(make_contract):
    config = dataclasses.replace(CONFIG, critic=CriticConfig(hidden=(2048, 2048, 2048)))
    critic = make_algorithm(config, make_policy(GAUSSIAN, make_contract())).critic
    assert 8e6 < sum(p.numel() for p in critic.parameters()) < 10e6
