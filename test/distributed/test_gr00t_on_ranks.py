"""Two ranks clone and improve a GR00T as one does, whatever of it learns."""

import re

import pytest
import torch
from gr00t_helpers import require_gr00t
from several_ranks import on_ranks, own_groups

from grpo_ros.algorithms import GrpoConfig, PpoConfig, make_algorithm
from grpo_ros.algorithms.behaviour_cloning import BehaviourCloningConfig, fit
from grpo_ros.algorithms.value_learner import CriticConfig
from grpo_ros.distributed.ranks import ONE_RANK
from grpo_ros.distributed.tensors import whole_tree
from grpo_ros.policies import make_policy, stack_samples
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.gr00t.files.tiny_checkpoint import make_tiny_checkpoint_for
from grpo_ros.randomness import Key
from grpo_ros.tasks.registry import make_task
from grpo_ros.training.averaging import PolicyAverage
from grpo_ros.training.rollout import Rollout

GROUPS, MEMBERS = 2, 2
NUM = GROUPS * MEMBERS
TOLERANCE = {"cloned": 1e-5, "full-ppo": 5e-6}
"""1e-6 elsewhere. Of all of a GR00T some gradients are as small as Adam's epsilon and as rounding,
and its first steps are of one size, the learning rate's, whatever the gradient's."""
KEY_BIASES = re.compile(r"to_k(\.base_layer)?\.bias$")
"""A softmax does not feel them: their gradients are rounding alone, which Adam makes steps of."""
STEPS = 2.5e-4
"""Two of cloning's, as far as a parameter of such a gradient may go."""
UPDATE = {
    "num_epochs": 2,
    "minibatch_size": 2,
    "warmup_steps": 0,
    "kl_target": 0.0,
    "learning_rate": 5e-5,  # what the preset's settles at
}
CASES = {
    "lora-grpo": ("lora", GrpoConfig(**UPDATE, reference_kl_coefficient=0.1)),
    "full-ppo": ("full", PpoConfig(**UPDATE, critic=CriticConfig(learning_rate=1e-4))),
}
CLONING = BehaviourCloningConfig(num_steps=2, batch_size=3, learning_rate=1e-4)

pytestmark = pytest.mark.timeout(600)


def _policy(folder, trained, cloned="same"):
    config = Gr00tConfig(policy_path=folder, trained=trained, cloned=cloned, lora_rank=4)
    return make_policy(config, make_task("reach").contract())


def _observed(contract):
    generator, obs = torch.Generator().manual_seed(0), {}
    for field in contract.observation:
        shape = (NUM, *field.shape)
        if field.dtype == "uint8":
            obs[field.name] = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        else:
            obs[field.name] = torch.rand(shape, generator=generator)
    return obs


@torch.no_grad()
def _rollout(policy):
    """Return a rollout of one decision, with outcomes that differ in each group."""
    obs = _observed(policy.contract)
    seen = policy.perceive(obs)
    generator = torch.Generator().manual_seed(1)
    sample = policy.act(seen, torch.randn(NUM, *policy.noise_shape, generator=generator))
    steps = torch.ones(NUM, 1, policy.contract.chunk_size, dtype=torch.bool)
    outcome = (torch.arange(NUM) % MEMBERS == 0).float()
    return Rollout(
        obs={name: value.unsqueeze(1) for name, value in seen.items()},
        sample=stack_samples([sample]),
        executed=steps,
        reward_terms=torch.zeros(*steps.shape, 1),
        terminated=torch.ones(NUM, dtype=torch.bool),
        truncated=torch.zeros(NUM, dtype=torch.bool),
        final_obs=obs,
        outcome=outcome,
        score=outcome,
        step_count=torch.zeros(len(outcome), dtype=torch.long),
        time_limit=100,
        num_groups=GROUPS,
        group_size=MEMBERS,
        reward_names=("effort",),
    )


def _learned(ranks, folder):
    """Return states before and after, metrics and decisions: of updates by case, of cloning."""
    found = {}
    for name, (trained, config) in CASES.items():
        policy = _policy(folder, trained)
        before, rollout = _copy(policy.state_dict()), own_groups(_rollout(policy), ranks)
        average = PolicyAverage(policy, 0.9)
        algorithm = make_algorithm(config, policy, ranks=ranks)
        ranks.shard(average.policy)
        metrics = algorithm.update(rollout, Key(0))
        average.update(policy)
        state = whole_tree({**average.state_dict(), "algorithm": algorithm.state_dict()})
        algorithm.load_state_dict(state["algorithm"])
        average.load_state_dict(state)
        after = {
            "learned": whole_tree(policy.state_dict()),
            "average": whole_tree(average.policy.state_dict()),
            "algorithm": whole_tree(algorithm.state_dict()),
        }
        with torch.no_grad(), average.policy.gathered():
            for _ in range(1 + ranks.index):  # ranks do not act equally often
                chunk = average.policy.mode(_observed(policy.contract))
        found[name] = before, after, metrics, chunk
    found["cloned"] = _cloned(ranks, folder)
    return found


def _cloned(ranks, folder):
    policy = _policy(folder, "lora", "full")
    before = _copy(policy.state_dict())
    ranks.shard(policy)
    chunk = torch.rand(NUM, *policy.chunk_shape, generator=torch.Generator().manual_seed(2))
    weight = torch.ones(chunk.shape[:2])
    weight[0, 1:] = 0.0
    obs, generator = _observed(policy.contract), torch.Generator().manual_seed(3)
    losses = []
    fit(
        policy,
        obs,
        chunk,
        weight,
        CLONING,
        generator,
        progress=lambda done, total, loss: losses.append(loss),
        ranks=ranks,
    )
    with torch.no_grad(), policy.gathered():
        chunk = policy.mode(obs)
    return before, {"learned": whole_tree(policy.state_dict())}, {"loss": losses[-1]}, chunk


def _copy(state):
    return {name: value.clone() for name, value in state.items()}


def _whole_and_sharded(ranks, folder):
    whole = _learned(ranks, folder)
    ranks._is_sharding = True
    return {"whole": whole, "sharded": _learned(ranks, folder)}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    require_gr00t()
    folder = tmp_path_factory.mktemp("gr00t") / "tiny"
    make_tiny_checkpoint_for(make_task("reach").contract(), folder, 0)
    several = on_ranks(_whole_and_sharded, str(folder), timeout_s=580.0)
    return _learned(ONE_RANK, str(folder)), several


@pytest.mark.parametrize("parameters", ["whole", "sharded"])
@pytest.mark.parametrize("name", [*CASES, "cloned"])
def test_two_ranks_change_a_gr00t_as_one_does(learned, name, parameters):
    one, several = learned
    before, states, metrics, chunk = one[name]
    assert any(not torch.equal(value, before[n]) for n, value in states["learned"].items())
    for rank in several:
        assert isinstance(rank, dict), rank
        _, found, its_metrics, its_chunk = rank[parameters][name]
        for part, state in states.items():
            assert found[part].keys() == state.keys()
            for key, value in state.items():
                difference = (found[part][key] - value).abs().nan_to_num()
                if key.endswith("qkv.bias"):
                    of_query, of_key, of_value = difference.chunk(3)
                    assert of_key.max() <= STEPS, (part, key)
                    difference = torch.cat((of_query, of_value))
                allowed = STEPS if KEY_BIASES.search(key) else TOLERANCE.get(name, 1e-6)
                assert difference.max() <= allowed, (part, key, float(difference.max()))
        assert its_metrics == pytest.approx(metrics, rel=1e-3, abs=1e-5, nan_ok=True)
        assert torch.allclose(its_chunk, chunk, rtol=0.0, atol=1e-5)
