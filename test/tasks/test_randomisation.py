"""Ranges of what is randomised are checked where they are given."""

import pytest

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError
from grpo_ros.tasks.base import Randomisation


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("action_delay", [2, 0]),
        ("mass", [1.4, 0.7]),
        ("mass", [-1, -0.5]),
        ("mass", [0, 0]),
        ("mass", [1, float("inf")]),
        ("friction", [-1, 0.5]),
        ("gains", [0, 0]),
    ],
)
def test_a_range_that_could_not_be_drawn_from_is_named(key, value):
    message = rf"'task\.randomisation': '{key}' = \[.*expected \[low, high\] with 0 <"
    with pytest.raises(ConfigurationError, match=message):
        typed.decode(Randomisation, {"enabled": True, key: value}, "task.randomisation")


def test_a_range_may_be_one_value_and_a_delay_none():
    one = Randomisation(mass=(1.0, 1.0), action_delay=(0, 0))
    assert one.mass == (1.0, 1.0)
