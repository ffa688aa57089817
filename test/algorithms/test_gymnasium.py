"""PPO on Gymnasium tasks: windows become episodes with the same advantages, and it learns."""

import dataclasses

import numpy as np
import pytest
import torch

from bench.gymnasium_tasks import (
    DOUBLE_PENDULUM,
    PENDULUM,
    Envs,
    as_rollout,
    episode_returns,
    train_ours,
)
from grpo_ros.algorithms.gae import generalised_advantages
from grpo_ros.policies import ActionSample

NUM_STEPS = 40


@pytest.fixture(scope="module")
def window():
    """A window in which episodes terminate, with actions drawn at random."""
    envs = Envs(dataclasses.replace(DOUBLE_PENDULUM, num_envs=3), seed=0)
    random = torch.Generator().manual_seed(0)
    steps = []
    for _ in range(NUM_STEPS):
        obs = envs.obs
        chunk = 2.0 * torch.rand(3, 1, envs.num_actions, generator=random) - 1.0
        sample = ActionSample(chunk, torch.zeros(3, 1))
        steps.append((obs, sample, *envs.step(chunk[:, 0])))
    return steps


def test_the_step_after_an_end_starts_a_new_episode_and_the_end_is_not_lost(window):
    ended = [(t, env) for t in range(NUM_STEPS - 1) for env in range(3) if window[t][3][env]]
    assert ended, "the pole falls within the window"
    for t, env in ended:
        assert not torch.equal(window[t + 1][0][env], window[t][5][env])
    running = [(t, e) for t in range(NUM_STEPS - 1) for e in range(3) if (t, e) not in ended]
    for t, env in running:
        assert torch.equal(window[t + 1][0][env], window[t][5][env])


def test_pieces_hold_every_step_once_and_have_the_advantages_of_the_window(window):
    rollout = as_rollout(window)
    assert rollout.num_env_steps == 3 * NUM_STEPS
    rewards, terminated = (torch.stack([step[i] for step in window], 1) for i in (2, 3))
    value = torch.stack([step[0].sum(1) for step in window], 1)
    following = torch.stack([step[5].sum(1) for step in window], 1)
    discounts = torch.full_like(rewards, 0.97)
    whole = generalised_advantages(
        rewards, discounts, value, following, terminated, terminated, 0.9
    )
    acted = rollout.executed[..., 0]
    piece_value = rollout.obs["state"].sum(2)
    last = acted.sum(1) - 1
    rows = torch.arange(len(last))
    piece_following = torch.roll(piece_value, -1, 1)
    piece_following[rows, last] = rollout.final_obs["state"].sum(1)
    ended = torch.zeros_like(acted)
    ended[rows, last] = True
    pieces = generalised_advantages(
        rollout.reward_terms[..., 0, 0],
        torch.full_like(piece_value, 0.97),
        piece_value,
        piece_following,
        ended & rollout.terminated.unsqueeze(1),
        ended,
        0.9,
    )
    found = pieces[acted].sort().values
    torch.testing.assert_close(found, whole.flatten().sort().values, atol=1e-5, rtol=1e-5)
    assert (rollout.terminated ^ rollout.truncated).all()


def test_it_learns_to_swing_a_pendulum_up():
    """From about -1200 for a policy that does nothing; the peers' figures are in docs/results."""
    torch.set_num_threads(1)
    setting = dataclasses.replace(PENDULUM, total_steps=49_152)
    idle = episode_returns(setting, lambda obs: np.zeros((len(obs), 1)), 10, 0).mean()
    learned = episode_returns(setting, train_ours(setting, 0)["grpo_ros"], 10, 0).mean()
    assert idle < -900.0 and learned > -500.0
