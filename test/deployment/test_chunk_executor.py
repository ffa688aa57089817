"""The chunk executor's seams, by hand: which actions of which chunk are executed when."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from deployment_fakes import AddingController, home, make_contract

from grpo_ros.deployment.chunk_executor import ChunkExecutor, ExecutionConfig
from grpo_ros.errors import ContractError, PolicyFileError


def make_executor(contract: dict[str, Any] | None = None, **config: Any) -> ChunkExecutor:
    executor = ChunkExecutor(
        make_contract(**(contract or {})), AddingController(), ExecutionConfig(**config)
    )
    executor.start(torch.from_numpy(home()[None]))
    return executor


def chunk(*values: float) -> np.ndarray[Any, Any]:
    """Return a chunk (1, K, 8) whose first component is given, the others 0."""
    actions = np.zeros((1, len(values), 8))
    actions[0, :, 0] = values
    return actions


def ahead(executor: ChunkExecutor) -> list[float]:
    return [float(step.action[0, 0]) for step in executor.remaining()]


def execute(executor: ChunkExecutor, num: int) -> list[float]:
    found = []
    for _ in range(num):
        executor.advance()
        found.append(float(executor.last_action[0, 0]))
    return found


# ---------------------------------------------------------------- one chunk


def test_a_chunk_is_rolled_through_the_controller_at_once() -> None:
    executor = make_executor()
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    targets = executor.remaining_targets()[:, 0] - home()[0]
    np.testing.assert_allclose(targets, 0.02 * np.array([0.1, 0.3, 0.6, 1.0]), atol=1e-12)
    execute(executor, 2)
    assert executor.needs_inference and executor.has_next
    targets = executor.remaining_targets()[:, 0] - home()[0]
    np.testing.assert_allclose(targets, 0.02 * np.array([0.6, 1.0]), atol=1e-12)
    assert executor.state["target"][0, 0].item() - home()[0] == pytest.approx(0.02 * 0.3)


def test_actions_are_clipped_to_one_before_anything_else() -> None:
    executor = make_executor(seam="blend")
    executor.load(chunk(9.0, -9.0, 0.5, 0.0))
    assert ahead(executor) == [1.0, -1.0, 0.5, 0.0]


@pytest.mark.parametrize(("lead", "asks_at"), [(0, 2), (1, 1), (2, 0)])
def test_the_next_chunk_is_asked_for_the_lead_before_it_is_due(lead: int, asks_at: int) -> None:
    executor = make_executor(lead_periods=lead)
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    for executed in range(3):
        assert executor.wants_inference == (executed >= asks_at)
        assert executor.needs_inference == (executed >= 2)
        executor.advance()


def test_an_asynchronous_contract_brings_its_delay_as_lead() -> None:
    contract = {"execution": "async", "delay_periods": 2}
    assert make_executor(contract).lead == 2
    assert make_executor(contract, lead_periods=1).lead == 2
    assert make_executor({"execution": "sync"}, lead_periods=1).lead == 1


@pytest.mark.parametrize("config", [{"num_executed": 5}, {"num_executed": 2, "lead_periods": 3}])
def test_more_than_a_chunk_has_is_refused(config: dict[str, int]) -> None:
    with pytest.raises(ContractError, match="within a chunk of 4"):
        make_executor(**config)


# ---------------------------------------------------------------- late chunks


@pytest.mark.parametrize(("late", "expected"), [(0, 4), (1, 3), (3, 1)])
def test_actions_for_periods_gone_by_are_passed_over(late: int, expected: int) -> None:
    executor = make_executor()
    executor.load(chunk(0.0, 0.0, 0.0, 0.0))
    asked_at = executor.now
    execute(executor, late)
    executor.load(chunk(0.1, 0.2, 0.3, 0.4), asked_at)
    assert ahead(executor) == [0.1, 0.2, 0.3, 0.4][-expected:]
    assert executor.needs_inference == (late >= 2)


def test_a_chunk_whose_time_is_gone_by_is_refused_and_changes_nothing() -> None:
    executor = make_executor()
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    execute(executor, 2)
    for _ in range(2):
        executor.pass_by()
    with pytest.raises(PolicyFileError, match="4 periods after its observation"):
        executor.load(chunk(0.5, 0.6, 0.7, 0.8), 0)
    assert ahead(executor) == [0.3, 0.4]


def test_periods_that_pass_without_a_step_count_for_what_is_late() -> None:
    executor = make_executor()
    executor.pass_by()
    executor.load(chunk(0.1, 0.2, 0.3, 0.4), 0)
    assert ahead(executor) == [0.2, 0.3, 0.4]


def test_a_chunk_that_comes_early_takes_over_at_once_in_its_own_time() -> None:
    executor = make_executor(lead_periods=1)
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    execute(executor, 1)
    asked_at = executor.now
    executor.load(chunk(0.5, 0.6, 0.7, 0.8), asked_at)
    assert execute(executor, 2) == [0.5, 0.6]
    assert executor.needs_inference


# ---------------------------------------------------------------- seams


def test_replace_takes_the_new_chunk_alone() -> None:
    executor = make_executor(seam="replace")
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    execute(executor, 2)
    executor.load(chunk(-0.1, -0.2, -0.3, -0.4))
    assert ahead(executor) == [-0.1, -0.2, -0.3, -0.4]


def test_blend_goes_from_the_old_chunk_to_the_new_one_over_what_both_foresaw() -> None:
    """Two steps are left: the new one counts 1/3 and 2/3 in them, and alone after them."""
    executor = make_executor(seam="blend")
    executor.load(chunk(0.0, 0.0, 0.3, 0.6))
    execute(executor, 2)
    executor.load(chunk(0.9, 0.9, 0.9, 0.9))
    expected = [0.3 * 2 / 3 + 0.9 / 3, 0.6 / 3 + 0.9 * 2 / 3, 0.9, 0.9]
    np.testing.assert_allclose(ahead(executor), expected, atol=1e-12)


def test_blend_has_nothing_to_blend_with_at_first_or_after_a_hold() -> None:
    executor = make_executor(seam="blend")
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    assert ahead(executor) == [0.1, 0.2, 0.3, 0.4]
    executor.abandon()
    executor.load(chunk(0.5, 0.6, 0.7, 0.8))
    assert ahead(executor) == [0.5, 0.6, 0.7, 0.8]


def test_blend_of_a_late_chunk_uses_the_actions_of_the_same_periods() -> None:
    executor = make_executor(seam="blend", num_executed=3)
    executor.load(chunk(0.0, 0.0, 0.0, 0.4))
    asked_at = executor.now + 2
    execute(executor, 3)
    executor.load(chunk(0.2, 0.8, 0.6, 0.4), asked_at)  # 0.2 was for a period gone by
    np.testing.assert_allclose(ahead(executor), [0.4 / 2 + 0.8 / 2, 0.6, 0.4], atol=1e-12)


def test_an_ensemble_weighs_all_chunks_that_foresaw_a_period_the_oldest_most() -> None:
    """Weights exp(-i / 2) from the oldest on; three chunks, each two periods after the last."""
    executor = make_executor(
        {"chunk_size": 6, "num_executed": 2}, seam="ensemble", ensemble_decay=0.5
    )
    w1, w2 = math.exp(-0.5), math.exp(-1.0)
    executor.load(chunk(0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    execute(executor, 2)
    executor.load(chunk(0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
    both = (0.1 + w1 * 0.5) / (1.0 + w1)
    np.testing.assert_allclose(ahead(executor), [both] * 4 + [0.5] * 2, atol=1e-12)
    execute(executor, 2)
    executor.load(chunk(0.9, 0.9, 0.9, 0.9, 0.9, 0.9))
    three = (0.1 + w1 * 0.5 + w2 * 0.9) / (1.0 + w1 + w2)
    two = (0.5 + w1 * 0.9) / (1.0 + w1)
    np.testing.assert_allclose(ahead(executor), [three] * 2 + [two] * 2 + [0.9] * 2, atol=1e-12)


def test_an_ensemble_without_decay_is_the_plain_mean_and_forgets_what_is_over() -> None:
    executor = make_executor(seam="ensemble", ensemble_decay=0.0)
    for value in (0.2, 0.4, 0.6):
        executor.load(chunk(*[value] * 4))
        execute(executor, 2)
    executor.load(chunk(*[0.8] * 4))
    np.testing.assert_allclose(ahead(executor), [0.7, 0.7, 0.8, 0.8], atol=1e-12)


def test_an_ensemble_starts_again_after_a_hold() -> None:
    executor = make_executor(seam="ensemble")
    executor.load(chunk(0.2, 0.2, 0.2, 0.2))
    execute(executor, 1)
    executor.abandon()
    executor.load(chunk(0.6, 0.6, 0.6, 0.6))
    assert ahead(executor) == pytest.approx([0.6] * 4)


# ---------------------------------------------------------------- rebase


def test_a_rebase_goes_on_from_the_place_given_and_keeps_the_grippers_command() -> None:
    executor = make_executor()
    closing = chunk(0.1, 0.1, 0.1, 0.1)
    closing[0, :, 7] = -1.0
    executor.load(closing)
    execute(executor, 2)
    assert executor.state["gripper"].item() == 0.0
    place = torch.from_numpy(home()[None] + 0.5)
    executor.rebase(place, torch.zeros_like(place))
    assert executor.state["gripper"].item() == 0.0
    assert not executor.has_next and executor.needs_inference
    executor.load(chunk(1.0, 0.0, 0.0, 0.0))
    assert executor.remaining_targets()[0, 0] == pytest.approx(home()[0] + 0.52)


def test_a_start_forgets_the_last_action_and_the_time() -> None:
    executor = make_executor()
    executor.load(chunk(0.1, 0.2, 0.3, 0.4))
    execute(executor, 2)
    executor.start(torch.from_numpy(home()[None]))
    assert executor.now == 0 and not executor.last_action.any() and not executor.has_next
    assert executor.remaining_targets().shape == (0, 8)
