"""Layers of settings, merged into one typed tree: what configuration and ROS parameters share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_ros import typed
from grpo_ros.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Layer:
    """Settings from one place.

    Attributes:
        origin: where they come from, for messages.
        tree: section -> setting -> value; what is absent stays as it was.
    """

    origin: str
    tree: Mapping[str, Any]


def merge[T](cls: type[T], layers: Sequence[Layer]) -> T:
    """Return the typed tree that layers make, later ones above earlier ones.

    Raises:
        ConfigurationError: the first layer with a mistake, and the mistake.
    """
    merged: dict[str, Any] = {}
    config = typed.decode(cls, merged)
    for layer in layers:
        merged = _merge_trees(merged, layer.tree)
        try:
            config = typed.decode(cls, merged)
        except ConfigurationError as problem:
            raise _located(problem, layer.origin) from None
    return config


def _located(problem: ConfigurationError, origin: str) -> ConfigurationError:
    return ConfigurationError(
        f"{problem.what} ({origin})", expected=problem.expected, remedy=problem.remedy
    )


def _merge_trees(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping):
            merged[key] = _merge_trees(under, value)
        else:
            merged[key] = value
    return merged
