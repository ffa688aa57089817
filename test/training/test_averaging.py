"""The deployed policy is the average it says it is."""

import pytest
import torch

from grpo_ros.policies import GaussianConfig, make_policy
from grpo_ros.tasks.pick_place import PickPlace
from grpo_ros.training.averaging import PolicyAverage


def _set(policy, value):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.fill_(value)


@pytest.mark.parametrize(
    ("decay", "expected"), [(0.0, 6.0), (0.999, (0 + 1 + 4 + 6) / 4), (0.5, 0.5 * 2.25 + 3.0)]
)
def test_first_iterates_are_averaged_plainly_then_exponentially(decay, expected):
    # Iterates 0, 1, 4, 6. Decay 0.5: 0.5, then 0.5 * 0.5 + 0.5 * 4 = 2.25, then 4.125.
    policy = make_policy(GaussianConfig(), PickPlace().contract())
    average = PolicyAverage(policy, decay)
    _set(policy, 0.0)
    average.start(policy)
    for value in (1.0, 4.0, 6.0):
        _set(policy, value)
        average.update(policy)
    for parameter in average.policy.parameters():
        assert torch.allclose(parameter, torch.full_like(parameter, expected))


def test_state_survives():
    policy = make_policy(GaussianConfig(), PickPlace().contract())
    first, second = PolicyAverage(policy, 0.9), PolicyAverage(policy, 0.9)
    for average in (first, second):
        average.start(policy)
    _set(policy, 1.0)
    first.update(policy)
    second.load_state_dict(first.state_dict())
    _set(policy, 2.0)
    for average in (first, second):
        average.update(policy)
    pairs = zip(first.policy.parameters(), second.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
