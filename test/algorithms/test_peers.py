"""Our advantages and losses equal those of rsl_rl, stable-baselines3 and TRL on the same batch.

The peers' own classes run here; nothing of theirs is written again.
"""

from __future__ import annotations

import collections
import types

import gymnasium
import numpy as np
import pytest
import rsl_rl.algorithms
import stable_baselines3
import torch
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import configure
from tensordict import TensorDict
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from grpo_ros.algorithms.advantages import group_advantages
from grpo_ros.algorithms.batch import Batch
from grpo_ros.algorithms.gae import generalised_advantages, normalise_advantages
from grpo_ros.algorithms.losses import log_ratio
from grpo_ros.algorithms.policy_gradient import PolicyGradient, PolicyGradientConfig
from grpo_ros.algorithms.value_learner import value_loss
from grpo_ros.policies.base import ActionSample
from grpo_ros.policies.normal import normal_entropy

NUM_ENVS, NUM_STEPS, GAMMA, LAMBDA = 6, 20, 0.97, 0.9
CLIP, ENTROPY_COEFFICIENT, VALUE_COEFFICIENT = 0.2, 0.01, 0.5


class Bare(torch.nn.Module):
    """A policy of which only the entropy is asked."""

    def __init__(self, entropy: Tensor) -> None:
        super().__init__()
        self.weight, self._entropy = torch.nn.Parameter(torch.zeros(1)), entropy

    def entropy(self, obs: object) -> Tensor:
        return self._entropy


def surrogate(
    log_prob: Tensor, old: Tensor, advantages: Tensor, entropy: Tensor, **settings: object
) -> float:
    """Return our loss of chunks of one step (B,), or of K steps (B, K) with `executed`."""
    executed = settings.pop("executed", torch.ones_like(log_prob.reshape(len(log_prob), -1)) > 0)
    config = PolicyGradientConfig(clip_low=CLIP, clip_high=CLIP, **settings)
    old, log_prob = old.reshape(executed.shape), log_prob.reshape(executed.shape)
    sample = ActionSample(torch.zeros(*executed.shape, 1), old)
    batch = Batch({}, sample, executed, advantages.reshape(-1, 1), executed.float())
    ratios = log_ratio(log_prob, old, executed, config.ratio)
    learner = PolicyGradient(config, Bare(entropy))
    terms = (entropy,) if config.entropy_coefficient > 0.0 else ()
    return float(learner._loss(ratios, terms, batch, float(executed.sum()))[0])


@pytest.fixture
def episodes() -> dict[str, Tensor]:
    """Rewards, values and ends of a window; some episodes terminate, some are cut."""
    random = torch.Generator().manual_seed(0)
    shape = (NUM_ENVS, NUM_STEPS)
    rewards, values, following = torch.randn(3, *shape, generator=random)
    ended = torch.rand(*shape, generator=random) < 0.15
    terminated = ended & (torch.rand(*shape, generator=random) < 0.5)
    assert (ended & ~terminated).any() and terminated.any()
    next_values = torch.where(ended, following, values.roll(-1, 1))
    next_values[:, -1] = following[:, -1]
    return {
        "rewards": rewards,
        "values": values,
        "next_values": next_values,
        "ended": ended,
        "terminated": terminated,
    }


def test_advantages_are_those_of_stable_baselines3(episodes):
    box = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    buffer = RolloutBuffer(NUM_STEPS, box, box, "cpu", LAMBDA, GAMMA, NUM_ENVS)
    rewards, values = episodes["rewards"], episodes["values"]
    ended, truncated = episodes["ended"], episodes["ended"] & ~episodes["terminated"]
    # Its collector adds gamma V(last state) to the reward of a cut episode.
    bootstrapped = rewards + GAMMA * torch.where(truncated, episodes["next_values"], 0.0)
    zeros = np.zeros((NUM_ENVS, 1))
    for t in range(NUM_STEPS):
        starts = np.ones(NUM_ENVS) if t == 0 else ended[:, t - 1].numpy()
        buffer.add(
            zeros, zeros, bootstrapped[:, t].numpy(), starts, values[:, t], torch.zeros(NUM_ENVS)
        )
    buffer.compute_returns_and_advantage(episodes["next_values"][:, -1], ended[:, -1].numpy())
    ours = generalised_advantages(
        discounts=torch.full_like(rewards, GAMMA), trace_decay=LAMBDA, **episodes
    )
    torch.testing.assert_close(ours, torch.tensor(buffer.advantages.T), atol=1e-6, rtol=0)


def test_the_loss_is_that_of_stable_baselines3():
    torch.manual_seed(0)
    model = stable_baselines3.PPO(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=0.0,
        n_steps=64,
        batch_size=64,
        n_epochs=1,
        ent_coef=ENTROPY_COEFFICIENT,
        vf_coef=VALUE_COEFFICIENT,
        seed=0,
    )
    model.set_logger(configure(None, []))
    _, callback = model._setup_learn(64)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, 64)
    model.rollout_buffer.log_probs += 0.3 * np.random.default_rng(0).standard_normal((64, 1))
    buffer = model.rollout_buffer
    obs, actions = (
        torch.as_tensor(buffer.swap_and_flatten(a)) for a in (buffer.observations, buffer.actions)
    )
    old, advantages, returns = (
        torch.as_tensor(a, dtype=torch.float32).flatten()
        for a in (buffer.log_probs, buffer.advantages, buffer.returns)
    )
    with torch.no_grad():
        values, log_prob, _ = model.policy.evaluate_actions(obs, actions)
        std = model.policy.log_std.exp()
    model.train()
    theirs = model.logger.name_to_value
    scaled = normalise_advantages(advantages, torch.ones_like(advantages) > 0)
    entropy = normal_entropy(std).expand(64)
    ours = surrogate(log_prob, old, scaled, entropy, entropy_coefficient=ENTROPY_COEFFICIENT)
    fit = float(value_loss(values.flatten(), values.flatten(), returns, 0.0).mean())
    assert fit == pytest.approx(float(theirs["train/value_loss"]), rel=1e-6)
    alone = surrogate(log_prob, old, scaled, entropy)
    assert alone == pytest.approx(float(theirs["train/policy_gradient_loss"]), abs=1e-6)
    total = ours + VALUE_COEFFICIENT * fit
    assert total == pytest.approx(float(theirs["train/loss"]), rel=1e-6, abs=1e-6)
    assert theirs["train/clip_fraction"] > 0.1


def test_advantages_and_losses_are_those_of_rsl_rl(episodes):
    torch.manual_seed(0)
    groups = {"actor": ["policy"], "critic": ["policy"]}

    def seen() -> object:
        return TensorDict({"policy": torch.randn(NUM_ENVS, 4)}, batch_size=[NUM_ENVS])

    first = seen()
    distribution = {"class_name": "GaussianDistribution", "init_std": 0.5}
    actor = MLPModel(first, groups, "actor", 2, (16,), distribution_cfg=distribution)
    critic = MLPModel(first, groups, "critic", 1, (16,))
    storage = RolloutStorage("rl", NUM_ENVS, NUM_STEPS, first, (2,))
    ppo = rsl_rl.algorithms.PPO(
        actor,
        critic,
        storage,
        num_learning_epochs=1,
        num_mini_batches=1,
        gamma=GAMMA,
        lam=LAMBDA,
        clip_param=CLIP,
        entropy_coef=ENTROPY_COEFFICIENT,
        value_loss_coef=VALUE_COEFFICIENT,
        learning_rate=0.0,
        schedule="fixed",
    )
    ended, terminated, rewards = (episodes[k] for k in ("ended", "terminated", "rewards"))
    for t in range(NUM_STEPS):
        obs = first if t == 0 else seen()
        ppo.act(obs)
        time_outs = (ended & ~terminated)[:, t].float()
        ppo.process_env_step(obs, rewards[:, t], ended[:, t].long(), {"time_outs": time_outs})
    last = seen()
    ppo.compute_returns(last)
    values = storage.values.squeeze(-1).T.clone()
    # It takes the value of what a cut episode saw last for that of what followed.
    with torch.no_grad():
        after = torch.cat([values[:, 1:], critic(last)], dim=1)
    next_values = torch.where(ended, values, after)
    ours = generalised_advantages(
        rewards, torch.full_like(rewards, GAMMA), values, next_values, terminated, ended, LAMBDA
    )
    returns = storage.returns.squeeze(-1).T.clone()
    torch.testing.assert_close(ours + values, returns, atol=1e-6, rtol=1e-6)
    scaled = normalise_advantages(ours, torch.ones_like(ours) > 0)
    theirs = storage.advantages.squeeze(-1).T
    torch.testing.assert_close(scaled, theirs, atol=1e-6, rtol=1e-5)

    with torch.no_grad():
        for parameter in (*actor.parameters(), *critic.parameters()):
            parameter += 0.05 * torch.randn_like(parameter)
        flat = storage.observations.flatten(0, 1)
        actor(flat, stochastic_output=True)
        log_prob = actor.get_output_log_prob(storage.actions.flatten(0, 1))
        entropy, new_values = actor.output_entropy.clone(), critic(flat).squeeze(-1)
    old, old_values = storage.actions_log_prob.flatten(), storage.values.flatten()
    advantages, targets = storage.advantages.flatten(), storage.returns.flatten()
    losses = ppo.update()
    assert surrogate(log_prob, old, advantages, entropy) == pytest.approx(
        losses["surrogate"], abs=1e-6
    )
    fit = float(value_loss(new_values, old_values, targets, CLIP).mean())
    assert fit == pytest.approx(losses["value"], rel=1e-6)
    with_bonus = surrogate(
        log_prob, old, advantages, entropy, entropy_coefficient=ENTROPY_COEFFICIENT
    )
    expected = losses["surrogate"] - ENTROPY_COEFFICIENT * losses["entropy"]
    assert with_bonus == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [("step", "token"), ("mean", "sequence")])
def test_the_grpo_loss_is_that_of_trl(ours, theirs):
    random = torch.Generator().manual_seed(0)
    rewards = torch.rand(4, 4, generator=random)
    log_prob, noise = torch.randn(2, 16, 5, generator=random)
    old = log_prob + 0.3 * noise
    length = torch.randint(1, 6, (16, 1), generator=random)
    executed = torch.arange(5) < length
    advantages = group_advantages(rewards, torch.ones_like(rewards) > 0).flatten()

    trainer = types.SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_prob, torch.zeros(16, 5), None),
        accelerator=types.SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x),
        args=types.SimpleNamespace(use_bias_correction_kl=False, delta=None),
        model=types.SimpleNamespace(training=False),
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=theirs,
        loss_type="bnpo",
        beta=0.0,
        epsilon_low=CLIP,
        epsilon_high=CLIP,
        use_vllm=False,
        _entropy_bonus_enabled=False,
    )
    empty, mask = torch.zeros(16, 0, dtype=torch.long), executed.long()
    inputs = {
        "prompt_ids": empty,
        "prompt_mask": empty,
        "completion_ids": torch.zeros(16, 5, dtype=torch.long),
        "completion_mask": mask,
        "advantages": advantages,
        "old_per_token_logps": old,
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    entropy = torch.zeros(16)
    found = surrogate(log_prob, old, advantages, entropy, executed=executed, ratio=ours)
    assert found == pytest.approx(float(loss), abs=1e-6)
    assert abs(float(loss)) > 1e-3
