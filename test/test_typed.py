"""Typed trees: exact round trips, and every mistake named with its key."""

import dataclasses
from typing import Literal

import pytest

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Leaf:
    rate: float = typed.setting(1.0, "Rate", unit="Hz", minimum=0.0, maximum=10.0)
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True)
class Tree:
    count: int
    leaf: Leaf = typed.setting(factory=Leaf)
    names: tuple[str, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    maybe: float | None = None
    table: dict[str, int] = typed.setting(factory=dict)


def test_round_trip_is_exact():
    tree = Tree(3, Leaf(0.1, "b"), ("x", "y"), (0.25, 0.5), 1e-17, {"k": 2})
    assert typed.decode(Tree, typed.encode(tree)) == tree


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"cuont": 1}, r"unknown key 'cuont' = 1; did you mean 'count'"),
        ({}, r"'count' is missing; expected int"),
        ({"count": "many"}, r"'count' = 'many'; expected int"),
        ({"count": True}, r"'count' = True; expected int"),
        ({"count": 1.5}, r"'count' = 1.5"),
        ({"count": 1, "leaf": {"rate": 11}}, r"'leaf.rate' = 11.0; expected a value in \[0.0, 10"),
        ({"count": 1, "leaf": {"rate": float("nan")}}, r"'leaf.rate' is not a number"),
        ({"count": 1, "leaf": {"rate": 10**400}}, r"'leaf.rate' is larger than a float can be"),
        ({"count": 1, "leaf": {"kind": "c"}}, r"'leaf.kind' = 'c'; expected 'a' | 'b'"),
        ({"count": 1, "leaf": 3}, r"'leaf' is 3; expected a mapping"),
        ({"count": 1, "pair": [1.0]}, r"'pair' has 1 entries; expected 2"),
        ({"count": 1, "names": "xy"}, r"'names' = 'xy'; expected a list"),
        ({"count": 1, "names": ["x", 1]}, r"'names\[1\]' = 1"),
        ([1], r"a mapping of settings"),
    ],
)
def test_mistakes_name_key_value_and_expectation(data, message):
    with pytest.raises(ConfigurationError, match=message):
        typed.decode(Tree, data)
