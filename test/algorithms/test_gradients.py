from __future__ import annotations

import pytest
import torch
from torch import nn

from grpo_ros.algorithms.gradients import clip_gradients


def parameters(*gradients: list[float] | None) -> list[nn.Parameter]:
    made = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(len(gradient or [0.0])))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        made.append(parameter)
    return made


@pytest.mark.parametrize("maximum", [0.5, 13.0, 20.0])
def test_gradients_are_scaled_as_torch_scales_them(maximum):
    ours, theirs = (parameters([3.0, 4.0], None, [12.0]) for _ in range(2))
    norm = clip_gradients(ours, maximum)
    assert norm == pytest.approx(13.0)
    nn.utils.clip_grad_norm_(theirs, maximum)
    for mine, reference in zip(ours, theirs, strict=True):
        if reference.grad is not None:
            torch.testing.assert_close(mine.grad, reference.grad)


def test_what_is_not_finite_is_reported_and_left_alone():
    found = parameters([float("nan"), 4.0])
    assert clip_gradients(found, 1.0) != clip_gradients(found, 1.0)
    assert found[0].grad[1] == 4.0
    assert clip_gradients(parameters([float("inf")]), 1.0) == float("inf")


def test_no_gradients_have_norm_zero():
    assert clip_gradients(parameters(None), 1.0) == 0.0
