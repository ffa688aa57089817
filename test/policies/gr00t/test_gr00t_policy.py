"""Gr00tPolicy on the tiny checkpoint of the real architecture."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from gr00t_contract import STATES, make_contract, noise_of, observe

from grpo_ros.algorithms import GrpoConfig, PpoConfig, make_algorithm
from grpo_ros.algorithms.behaviour_cloning import BehaviourCloningConfig, fit
from grpo_ros.algorithms.ratio_check import check_first_ratio
from grpo_ros.errors import CheckpointError, ConfigurationError, TrainingError
from grpo_ros.export.onnx_export import export_policy
from grpo_ros.export.policy_file import load_policy_file
from grpo_ros.policies import make_policy
from grpo_ros.policies.base import stack_samples
from grpo_ros.policies.gr00t.config import Gr00tConfig
from grpo_ros.policies.gr00t.files import checkpoint
from grpo_ros.randomness import Key
from grpo_ros.training.rollout import Rollout

NUM = 6
TRAINED = ("lora", "head", "full")
MODES = [(a, b) for a in ("transition", "joint") for b in ("fixed", "learned")]


@pytest.fixture
def config(tiny_folder):
    return Gr00tConfig(policy_path=str(tiny_folder), state=STATES, lora_rank=4)


def built(config, **changes):
    config = dataclasses.replace(config, **changes)
    return make_policy(config, make_contract(), torch.Generator().manual_seed(3))


def sampled(policy, seed=0):
    with torch.no_grad():
        seen = policy.perceive(observe(NUM, seed))
        sample = policy.act(seen, noise_of(NUM, policy.noise_shape, seed))
    return seen, sample


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize(("likelihood", "noise"), MODES)
def test_likelihoods_are_those_of_the_draw_and_reach_what_is_trained(
    config, trained, likelihood, noise
):
    policy = built(config, trained=trained, likelihood=likelihood, noise=noise)
    seen, sample = sampled(policy)
    log_prob = policy.log_prob(seen, sample)
    assert log_prob.shape == (NUM, 4)
    assert torch.expm1(log_prob - sample.log_prob).abs().max() <= 1e-4
    log_prob.sum().backward()
    for name, parameter in policy.named_parameters():
        if parameter.grad is not None:
            assert parameter.requires_grad, name
    touched = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert touched
    assert any("lora_A" in name for name in touched) == (trained == "lora")
    assert any("backbone" in name for name in touched) == (trained == "full")
    assert any("noise_network" in name for name in touched) == (noise == "learned")
    learns = {name for name, p in policy.named_parameters() if p.requires_grad}
    untouched = {name for name in learns - touched if "lm_head" not in name}
    assert not untouched


def test_in_bfloat16_the_ratio_stays_within_its_measured_bound(config):
    """0 where act and log_prob see the same batch; in other batches sums round otherwise."""
    policy = built(config, precision="bfloat16")
    seen, sample = sampled(policy)
    whole = policy.log_prob(seen, sample)
    assert torch.expm1(whole - sample.log_prob).abs().max() <= 1e-4
    rows = torch.tensor([4, 1])
    part = policy.log_prob({name: value[rows] for name, value in seen.items()}, sample.rows(rows))
    log_ratio = part - sample.log_prob[rows]
    assert torch.expm1(log_ratio).abs().max() <= 0.5 * policy.ratio_rounding
    check_first_ratio(policy, log_ratio, tolerance=1e-4)
    with pytest.raises(TrainingError, match="1 within 0.1"):
        check_first_ratio(policy, log_ratio + 0.2, tolerance=1e-4)


def test_denoising_steps_other_than_the_checkpoints_own_are_told(config, monkeypatch):
    told = []
    monkeypatch.setattr(checkpoint.log, "warning", lambda text, *parts: told.append(text % parts))
    built(config)
    assert not told
    built(config, num_steps=2)
    assert told == [f"gr00t.num_steps = 2, and {config.policy_path} takes 4 denoising steps"]


def test_in_float32_nothing_is_allowed_for_rounding(config):
    assert built(config).ratio_rounding == 0.0


def test_the_chunk_is_that_of_the_real_model_from_the_same_noise(config, tiny_model):
    """LeRobot's GR00TN17.get_action, given our patches, prompt, state and initial noise."""
    policy = built(config, trained="head")
    obs = observe(NUM)
    head, backbone = policy.action_head, policy.perception.backbone
    patches = policy.perception.transform(policy.perception.stacked(obs))
    state = torch.cat((obs["angles"], obs["finger"]), dim=1)
    low = torch.tensor([-2.0, -1.0, 0.5, 0.0])
    high = torch.tensor([2.0, 1.5, 0.5, 0.04])
    unit = torch.where(high > low, 2.0 * (state - low) / (high - low).clamp(min=1e-9) - 1.0, 0.0)
    padded = torch.zeros(NUM, 1, head.state_size)
    padded[:, 0, :4] = unit.clamp(-1.0, 1.0)
    ids = backbone.input_ids.expand(NUM, -1)
    rows, columns = policy.perception.transform.grid
    torch.manual_seed(5)
    expected = tiny_model.get_action(
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": patches.flatten(0, 2),
            "image_grid_thw": torch.tensor([[1, rows, columns]] * (2 * NUM)),
            "state": padded,
            "embodiment_id": torch.full((NUM,), policy.checkpoint.embodiment_id),
        }
    )["action_pred"]
    torch.manual_seed(5)
    x0 = torch.randn(NUM, *head.shape)
    with torch.no_grad():
        seen = policy.perceive(obs)
        found = policy.denoiser.decide(policy._velocity_of(seen), x0)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    chunk = policy.decide(obs, x0)
    # The gripper first; then the arm, -1 .. 1 of its ranges, over the contract's scale.
    low, high = torch.tensor([-0.03, -0.03, -0.15]), torch.tensor([0.03, 0.05, 0.15])
    arm = (0.5 * (high + low) + 0.5 * (high - low) * expected[:, :4, :3]) / torch.tensor(
        [0.03, 0.04, 0.15]
    )
    torch.testing.assert_close(chunk[..., 1:], arm.clamp(-1.0, 1.0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        chunk[..., :1], expected[:, :4, 3:4].clamp(-1.0, 1.0), atol=1e-5, rtol=1e-5
    )


def test_adapters_change_nothing_at_first(config):
    obs = observe(2)
    with torch.no_grad():
        assert torch.equal(built(config).mode(obs), built(config, trained="head").mode(obs))


@pytest.mark.parametrize("trained", TRAINED)
def test_state_holds_what_is_trained_and_brings_back_the_same_policy(config, trained):
    policy, other = built(config, trained=trained), built(config, trained=trained)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01
    seen, _ = sampled(policy)
    policy.fit_statistics(seen)
    state = policy.state_dict()
    trained_values = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert sum(v.numel() for v in state.values()) == trained_values + 4 * policy.num_features
    assert not torch.equal(sampled(other)[1].chunk, sampled(policy)[1].chunk)
    other.load_state_dict(state)
    assert torch.equal(sampled(other)[1].chunk, sampled(policy)[1].chunk)
    assert torch.equal(other.critic_features(seen), policy.critic_features(seen))


@pytest.mark.parametrize("cloned", TRAINED)
def test_cloning_may_train_more_than_what_learns_from_outcomes_later(config, cloned):
    policy, other = (built(config, cloned=cloned) for _ in range(2))
    before = {name: p.clone() for name, p in policy.named_parameters()}
    obs = observe(NUM)
    chunk = noise_of(NUM, (4, 4)).clamp(-1.0, 1.0)
    settings = BehaviourCloningConfig(num_steps=3, batch_size=4, learning_rate=1e-2)
    generator = torch.Generator().manual_seed(0)
    fit(policy, obs, chunk, torch.ones(NUM, 4), settings, generator)
    changed = {name for name, p in policy.named_parameters() if not torch.equal(p, before[name])}
    assert any("lora_B" in name for name in changed) == (cloned == "lora")
    assert any("action_decoder" in name for name in changed) == (cloned != "lora")
    assert any("vision" in name for name in changed) == (cloned == "full")
    learns = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert learns and all("lora_" in name for name in learns)
    other.load_state_dict(policy.state_dict())
    with torch.no_grad():
        assert torch.equal(other.mode(obs), policy.mode(obs))
        assert torch.equal(copy.deepcopy(policy).mode(obs), policy.mode(obs))


def test_a_state_of_something_else_is_refused(config):
    with pytest.raises(CheckpointError, match="differs in .* tensors"):
        built(config).load_state_dict(built(config, trained="head").state_dict())


def test_a_copy_shares_what_is_not_trained(config):
    policy = built(config)
    copied = copy.deepcopy(policy)
    pairs = list(zip(policy.parameters(), copied.parameters(), strict=True))
    assert all((a is b) == (not a.requires_grad) for a, b in pairs)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.requires_grad:
                parameter += 0.1
        obs = observe(2)
        assert not torch.equal(copied.mode(obs), policy.mode(obs))
        assert torch.equal(policy.mode(obs), built(config).mode(obs))


def test_it_is_exported_as_one_graph_with_what_it_sees(config, tmp_path):
    policy = built(config)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(0))
    contract = policy.annotate(make_contract())
    assert [f.name for f in contract.observation] == [
        "finger",
        "angles",
        "wrist_image",
        "front_image",
    ]
    obs = observe(3)
    report = export_policy(policy, contract, tmp_path / "policy.onnx", obs)
    assert report.max_abs_difference <= 1e-5
    loaded = load_policy_file(tmp_path / "policy.onnx")
    arrays = {field.name: obs[field.name].numpy() for field in contract.observation}
    with torch.no_grad():
        expected = policy.mode(obs).numpy()
    np.testing.assert_allclose(loaded.infer(arrays), expected, atol=1e-5)
    assert np.abs(np.diff(expected, axis=0)).max() > 1e-3  # what is seen matters


def test_noise_is_an_input_where_the_contract_says_so(config, tmp_path):
    policy = built(config)
    shape = policy.action_head.shape
    contract = dataclasses.replace(policy.annotate(make_contract()), noise_shape=shape)
    obs = observe(3)
    report = export_policy(policy, contract, tmp_path / "policy.onnx", obs)
    assert report.max_abs_difference <= 1e-5


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_two_graphs_with_weights_beside_them_it_is_the_same_policy(config, tmp_path, precision):
    policy = built(config, precision=precision)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(0))
    shape = policy.action_head.shape
    contract = dataclasses.replace(policy.annotate(make_contract()), noise_shape=shape)
    obs, path = observe(5), tmp_path / "policy.onnx"
    report = export_policy(policy, contract, path, obs, one_file_bytes=0)
    assert report.max_abs_difference <= 1e-5
    served = load_policy_file(path)
    assert {c.name for c in served.companions} | {"policy.onnx"} == {
        p.name for p in tmp_path.iterdir()
    }
    exact = policy.in_float32()
    assert (exact is policy) == (precision == "float32")
    noise = noise_of(5, shape)
    arrays = {field.name: obs[field.name].numpy() for field in contract.observation}
    found = served.infer({**arrays, "noise": noise.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, exact.decide(obs, noise).numpy(), atol=1e-5)
        trained = policy.decide(obs, noise).numpy()
    assert np.abs(found - trained).max() <= (1e-5 if precision == "float32" else 0.05)
    assert np.abs(np.diff(found, axis=0)).max() > 1e-3  # what is seen matters
    assert {p.dtype for p in exact.parameters()} == {torch.float32}


def test_without_a_checkpoint_it_says_how_to_get_one():
    with pytest.raises(ConfigurationError, match="policy_path.*make-tiny-gr00t"):
        make_policy(Gr00tConfig(), make_contract())


# ------------------------------------------------------------------ learning

GROUPS, MEMBERS = 6, 8


def roll_out(policy, iteration):
    """Return one decision each of GROUPS states; successful is a chunk that is far up in b."""
    states = observe(GROUPS, seed=11)
    obs = {name: value.repeat_interleave(MEMBERS, 0) for name, value in states.items()}
    num = GROUPS * MEMBERS
    with torch.no_grad():
        seen = policy.perceive(obs)
        sample = policy.act(seen, noise_of(num, policy.noise_shape, 100 + iteration))
    outcome = (sample.chunk[..., 2].mean(dim=1) > 1.0).float()
    steps = torch.ones(num, 1, 4, dtype=torch.bool)
    return Rollout(
        obs={name: value.unsqueeze(1) for name, value in seen.items()},
        sample=stack_samples([sample]),
        executed=steps,
        reward_terms=torch.zeros(num, 1, 4, 1),
        terminated=torch.ones(num, dtype=torch.bool),
        truncated=torch.zeros(num, dtype=torch.bool),
        final_obs=obs,
        outcome=outcome,
        score=outcome,
        step_count=torch.zeros(len(outcome), dtype=torch.long),
        time_limit=100,
        num_groups=GROUPS,
        group_size=MEMBERS,
        reward_names=("outcome",),
    )


SHARED = {
    "num_epochs": 2,
    "minibatch_size": 24,
    "learning_rate": 3e-3,
    "maximum_learning_rate": 3e-3,
    "warmup_steps": 0,
    "kl_target": 0.0,
}


@pytest.mark.parametrize("algorithm", [GrpoConfig(**SHARED), PpoConfig(**SHARED)])
def test_grpo_and_ppo_raise_a_known_success_by_half(config, algorithm):
    policy = built(config, noise_level=1.5, noisy_steps=(3,))
    updater = make_algorithm(algorithm, policy)
    rates = []
    for iteration in range(22):
        rollout = roll_out(policy, iteration)
        rates.append(float(rollout.outcome.mean()))
        metrics = updater.update(rollout, Key(0, iteration))
        assert metrics["first_minibatch_ratio_error"] <= 1e-4
    assert np.mean(rates[:3]) < 0.45
    assert np.mean(rates[-3:]) > np.mean(rates[:3]) + 0.5
