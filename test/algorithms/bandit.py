"""A two-state bandit for tests of algorithms."""

from __future__ import annotations

import torch

from grpo_ros.policies import stack_samples
from grpo_ros.randomness import Key, normal
from grpo_ros.training.rollout import Rollout

NUM_GROUPS, GROUP_SIZE, NUM_DECISIONS = 8, 8, 2


def roll_out(policy, iteration=0, outcome=None):
    """One rollout of a two-state bandit: in state +1 pushing up is right, in state -1 down."""
    num = NUM_GROUPS * GROUP_SIZE
    state = torch.where(torch.arange(NUM_GROUPS) % 2 == 0, 1.0, -1.0).repeat_interleave(GROUP_SIZE)
    obs = {
        "tip": state.view(-1, 1, 1).repeat(1, NUM_DECISIONS, 3),
        "gap": torch.zeros(num, NUM_DECISIONS, 2),
    }
    keys = [Key(0, iteration, 0, member) for member in range(num)]
    noise = normal("test", keys, (NUM_DECISIONS, *policy.noise_shape))
    with torch.no_grad():
        sample = stack_samples(
            [
                policy.act({name: v[:, t] for name, v in obs.items()}, noise[:, t])
                for t in range(NUM_DECISIONS)
            ]
        )
    if outcome is None:
        outcome = (state * sample.chunk.mean(dim=(1, 2, 3)) > 0.1).float()
    num_steps = policy.contract.chunk_size
    return Rollout(
        obs=obs,
        sample=sample,
        executed=torch.ones(num, NUM_DECISIONS, num_steps, dtype=torch.bool),
        reward_terms=torch.zeros(num, NUM_DECISIONS, num_steps, 1),
        terminated=outcome > 0,
        truncated=outcome <= 0,
        final_obs={name: value[:, -1] for name, value in obs.items()},
        outcome=outcome,
        score=outcome,
        step_count=torch.zeros(len(outcome), dtype=torch.long),
        time_limit=100,
        num_groups=NUM_GROUPS,
        group_size=GROUP_SIZE,
        reward_names=("effort",),
    )


def weights(policy):
    return {name: value.clone() for name, value in policy.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())
