"""Blocks that are computed again for their gradients: the same gradients, of less memory."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from gr00t_contract import STATES, make_contract, noise_of, observe

from grpo_ros.policies import make_policy
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.gr00t.memory import gr00t_memory
from grpo_ros.policies.saved_tensors import SavedTensors

NUM = 4


@pytest.fixture
def config(tiny_folder):
    return Gr00tConfig(policy_path=str(tiny_folder), state=STATES, lora_rank=4)


def built(config, **changes):
    config = dataclasses.replace(config, **changes)
    policy = make_policy(config, make_contract(), torch.Generator().manual_seed(3))
    for parameter in policy.parameters():
        if parameter.requires_grad:  # adapters that start at 0 would hide each other's gradients
            parameter.data += 0.01
    return policy


def passed(policy):
    """Return the log-likelihood, its gradients, and what autograd kept between the two."""
    with torch.no_grad():
        seen = policy.perceive(observe(NUM))
        sample = policy.act(seen, noise_of(NUM, policy.noise_shape))
    with SavedTensors(policy.parameters()) as saved:
        log_prob = policy.log_prob(seen, sample)
        kept = saved.peak
    log_prob.sum().backward()
    gradients = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    return log_prob.detach(), gradients, kept


@pytest.mark.parametrize("trained", ["lora", "head", "full"])
def test_gradients_are_the_same_and_little_is_kept(config, trained):
    plain, saving = (built(config, trained=trained, checkpointing=on) for on in (False, True))
    assert plain.state_dict().keys() == saving.state_dict().keys()
    log_prob, gradients, kept = passed(plain)
    log_prob_again, gradients_again, kept_of_saving = passed(saving)
    assert torch.equal(log_prob, log_prob_again)
    assert gradients and gradients.keys() == gradients_again.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, gradients_again[name]), name
    memory = gr00t_memory(saving.config, make_contract())
    print(f"{trained}: kept {kept / NUM:.0f} and {kept_of_saving / NUM:.0f} bytes per row")
    print(f"  estimated {memory.activations} and {memory.checkpointed}")
    assert kept / NUM == pytest.approx(memory.activations, rel=0.15)
    # Between the passes no block is computed again yet.
    inputs = memory.checkpointed - memory.recomputed
    print(f"  of which between the passes {inputs}")
    assert kept_of_saving / NUM == pytest.approx(inputs, rel=0.15)
    assert kept_of_saving < 0.6 * kept


def test_gradients_are_the_same_in_bfloat16(config):
    found = [
        passed(built(config, trained="full", precision="bfloat16", checkpointing=on))[1]
        for on in (False, True)
    ]
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-6, rtol=1e-6)


def test_a_copy_does_as_the_policy_does(config):
    policy = built(config, trained="head", checkpointing=True)
    copied = copy.deepcopy(policy)
    assert torch.equal(passed(policy)[0], passed(copied)[0])
    assert passed(copied)[2] == passed(policy)[2]
    blocks = copied.action_head.head.model.transformer_blocks
    assert blocks[0] is not policy.action_head.head.model.transformer_blocks[0]
