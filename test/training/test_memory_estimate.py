"""Memory of training: what small policies take, how totals add up, and what is printed."""

import dataclasses

import pytest
import torch

from grpo_ros import cli, configuration
from grpo_ros.policies.saved_tensors import SavedTensors
from grpo_ros.training import memory
from grpo_ros.training.memory import Item, estimate_memory
from grpo_ros.training.memory_measured import measure_memory
from grpo_ros.training.memory_table import ESTIMATED, Compared, memory_table

SMALL = ("num_groups=1", "group_size=2", "algorithm.minibatch_size=26")


def _config(*settings):
    return configuration.load_config(["task=pick_place", *SMALL, *settings])


@pytest.mark.parametrize(
    "settings",
    [
        ("policy=gaussian", "algorithm=ppo"),
        ("policy=flow", "algorithm=grpo", "grpo.reference_kl_coefficient=0.1"),
        ("policy=flow", "algorithm=grpo", "flow.likelihood=joint", "flow.noisy_steps=[]"),
    ],
    ids=lambda settings: " ".join(settings),
)
def test_small_policies_take_what_is_counted(settings):
    estimate, measured = estimate_memory(_config(*settings)), measure_memory(_config(*settings))
    assert measured[memory.MOMENTS] == 2 * measured[memory.TRAINED] > 0
    for name, num_bytes in measured.items():
        if name != memory.ACTIVATIONS:
            assert estimate.bytes_of(name) == pytest.approx(num_bytes, rel=0.01), name


def test_what_autograd_keeps_of_a_flow_is_what_was_counted_per_row():
    config = _config("policy=flow", "algorithm=grpo", "num_groups=8")
    kept = estimate_memory(config).bytes_of(memory.ACTIVATIONS)
    assert kept == pytest.approx(measure_memory(config)[memory.ACTIVATIONS], rel=0.05)


def test_a_total_counts_the_greater_of_collecting_and_updating():
    estimate = dataclasses.replace(
        estimate_memory(_config("policy=gaussian", "algorithm=ppo")),
        items=(
            Item("a", 1000, "cuda"),
            Item("b", 300, "cuda", "collecting"),
            Item("c", 200, "cuda", "updating"),
            Item("d", 70, "cpu", "collecting"),
            Item("critic: e", 50, "cpu", "updating"),
        ),
    )
    assert (estimate.total("cuda"), estimate.total("cpu")) == (1300, 70)
    assert estimate.total("cpu", with_critic=False) == 70
    assert estimate.total() == 1000 + max(300 + 70, 200 + 50)


def test_the_critics_share_is_what_its_items_add():
    ppo = estimate_memory(_config("policy=gaussian", "algorithm=ppo"))
    grpo = estimate_memory(_config("policy=gaussian", "algorithm=grpo"))
    assert ppo.total(with_critic=False) == grpo.total()
    assert ppo.critic_share == pytest.approx(ppo.total() / grpo.total() - 1.0)


def test_saved_tensors_are_each_memory_once_and_no_weights():
    weight = torch.ones(1000, requires_grad=True)
    with SavedTensors([weight]) as saved:
        doubled = weight * 2.0  # a constant factor: nothing is kept
        grown = doubled.exp()  # its result is kept
        loss = (grown * grown).sum()  # the same memory again, twice
        assert saved.peak == 4000
        loss.backward()
        del doubled, grown, loss
        again = (weight * 2.0).exp()
        assert saved.peak == 4000  # the first was let go
    assert again.grad_fn is not None


def test_the_table_has_a_row_for_each_algorithm_where_they_differ():
    settings = ("policy=gaussian", "grpo.reference_kl_coefficient=0.1")
    compared = [
        Compared(estimate_memory(_config(*settings, f"algorithm={name}")), {})
        for name in ("grpo", "ppo")
    ]
    lines = memory_table(compared).splitlines()
    starts = [line.partition("  ")[0] for line in lines]
    assert "weights, trained" in starts and "reference policy (GRPO)" in starts
    assert "total, cpu (GRPO)" in starts and "total, cpu (PPO)" in starts
    assert "reference policy (PPO)" not in starts and "critic: weights (GRPO)" not in starts
    assert lines[-1] == ESTIMATED


def test_the_command_prints_estimates_and_measurements(capsys):
    arguments = ["memory", "--policy", "gaussian", "--algorithm", "ppo", "--measure", *SMALL]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("Adam's two moments"))
    value = row.split("cpu")[1].split("  ")
    assert len({cell.strip() for cell in value if cell.strip()}) == 1
    assert out.rstrip().splitlines()[-1] == ESTIMATED


def test_a_wrong_setting_is_one_line(capsys):
    assert cli.main(["memory", "--policy", "flow", "algorithm.minibatchsize:=3"]) == cli.MISTAKE
    assert "minibatch_size" in capsys.readouterr().err
