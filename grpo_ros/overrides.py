"""Overrides: `key=value` and `key:=value` texts, and the YAML in which values are written."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, cast, get_args, get_origin

import yaml

from grpo_ros.errors import ConfigurationError, nearest
from grpo_ros.typed import field_types


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as in YAML 1.2 (1.1 wants 1.0e-3), and keys are unique."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return the node of a mapping; raise ComposerError where a key stands twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    problem=f"key '{key.value}' stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, ValueError)
"""What PyYAML raises of a scalar that is not what its form or tag says, and of deep nesting."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One setting of a typed tree.

    Attributes:
        key: dotted name.
        hint: its type.
        default: its default value.
        description, unit, minimum, maximum: as declared.
    """

    key: str
    hint: Any
    default: Any
    description: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None


def leaves(tree: Any, prefix: str = "") -> Iterator[Leaf]:
    """Yield every setting of a typed tree with its present value as the default."""
    cls: type = type(tree)
    hints = field_types(cls)
    for field in dataclasses.fields(tree):
        key, value = f"{prefix}{field.name}", getattr(tree, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{key}.")
            continue
        meta = field.metadata
        yield Leaf(
            key,
            hints[field.name],
            value,
            meta.get("description", ""),
            meta.get("unit", ""),
            meta.get("minimum"),
            meta.get("maximum"),
        )


def load_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, or a key stands twice in one mapping; mostly with the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except UNREADABLE as problem:
        raise yaml.YAMLError(f"{type(problem).__name__}: {problem}") from problem


def insert(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key of a nested mapping.

    Raises:
        ConfigurationError: part of the key is already a plain value.
    """
    *parents, last = key.split(".")
    branch = tree
    for depth, parent in enumerate(parents):
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise ConfigurationError(
                f"'{'.'.join(parents[: depth + 1])}' and '{key}' are both given",
                expected="one of them",
            )
    if isinstance(value, Mapping) and isinstance(branch.get(last), dict):
        branch[last].update(value)
    else:
        branch[last] = value


def parse_override(
    cls: type, text: str, short_names: Mapping[str, str], chosen: Mapping[str, str]
) -> tuple[str, Any]:
    """Return dotted key and value of one override.

    Args:
        cls: the tree.
        text: `key=value` or `key:=value`.
        short_names: short name -> dotted key.
        chosen: selector -> section, so that `task.x` means `pick_place.x`.

    Raises:
        ConfigurationError: not such a text, or an unknown key.
    """
    key, found, raw = text.partition("=")
    key, raw = key.strip().removesuffix(":").strip(), raw.strip()
    if not found or not key:
        raise ConfigurationError(f"'{text}'", expected="key=value or key:=value")
    full = short_names.get(key, key)
    head, dot, rest = full.partition(".")
    if dot and head in chosen:
        full = f"{chosen[head]}.{rest}"
    hint = _find(cls, full)
    if hint is None:
        raise ConfigurationError(
            f"unknown key '{key}' = {raw!r} (command line)",
            remedy=_suggest(cls, key, full, short_names),
        )
    return full, _parse(hint, raw, key)


def _find(cls: type, key: str) -> Any:
    """Return the type of a dotted key in a tree; None where there is no such key."""
    hint: Any = cls
    for part in key.split("."):
        if not dataclasses.is_dataclass(hint):
            return None
        hint = field_types(cast(type, hint)).get(part)
        if hint is None:
            return None
    return hint


def _suggest(cls: type, key: str, full: str, short_names: Mapping[str, str]) -> str:
    keys = [leaf.key for leaf in leaves(cls())]
    same_end = [other for other in keys if other.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    if same_end:
        return "did you mean " + " or ".join(f"'{other}'" for other in sorted(same_end)) + "?"
    close = nearest(full, [*keys, *short_names])
    if close.startswith("did you mean"):
        return close
    by_end: dict[str, str] = {other.rsplit(".", 1)[-1]: other for other in keys}
    close = nearest(key.rsplit(".", 1)[-1], by_end)
    if close.startswith("did you mean"):
        return f"did you mean '{by_end[close.split(chr(39))[1]]}'?"
    return "`grpo-ros train --keys` lists all"


def _parse(hint: Any, raw: str, key: str) -> Any:
    """Return the value that a text means for a type; text stays text for a str."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    is_choice = get_origin(hint) is Literal and raw in get_args(hint)
    if str in options or is_choice:
        return raw
    if get_origin(hint) is tuple and not raw.startswith("["):
        raw = f"[{raw}]"
    try:
        return load_yaml(raw)
    except yaml.YAMLError:
        raise ConfigurationError(
            f"'{key}' = {raw!r} (command line)", expected="a YAML value"
        ) from None
