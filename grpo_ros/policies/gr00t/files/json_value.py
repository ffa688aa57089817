"""JsonValue: a value out of somebody's JSON file, taken as the type that is expected of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from grpo_ros.errors import CheckpointError, nearest

AGAIN = "download or copy the checkpoint again"
MAX_SHOWN = 60
"""Characters of a wrong value that a message repeats."""
FINITE = "a finite number"


@dataclasses.dataclass(frozen=True)
class JsonValue:
    """A value and where it stands.

    Every method but `has` and `optional` raises CheckpointError where the value is not what was
    asked for.

    Attributes:
        value: as the json module gives it.
        where: file and keys, for messages.
    """

    value: Any
    where: str

    def refuse(self, expected: str, remedy: str = AGAIN) -> CheckpointError:
        """Return the error that this value is not what was expected."""
        shown = repr(self.value)
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
        return CheckpointError(f"{self.where} is {shown}", expected=expected, remedy=remedy)

    def mapping(self) -> Mapping[str, Any]:
        """Return the JSON object."""
        if not isinstance(self.value, dict):
            raise self.refuse("a JSON object")
        return self.value

    def has(self, key: str) -> bool:
        """Return whether this is an object with that key, not null."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def __getitem__(self, key: str) -> JsonValue:
        """Return what an object has under a key."""
        known = self.mapping()
        if key not in known:
            hint = nearest(key, known) if known else "the object is empty"
            raise CheckpointError(f"{self.where} has no '{key}'", remedy=f"{hint}; {AGAIN}")
        return JsonValue(known[key], f"{self.where} {key}")

    def optional(self, key: str, default: Any) -> JsonValue:
        """Return what an object has under a key, or a default where that is absent or null."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return JsonValue(default if found is None else found, f"{self.where} {key}")

    def __iter__(self) -> Iterator[JsonValue]:
        """Iterate over a list."""
        if not isinstance(self.value, list):
            raise self.refuse("a list")
        return (JsonValue(item, f"{self.where}[{i}]") for i, item in enumerate(self.value))

    def text(self) -> str:
        """Return a string that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.refuse("a text")
        return self.value

    def flag(self) -> bool:
        """Return true or false."""
        if not isinstance(self.value, bool):
            raise self.refuse("true or false")
        return self.value

    def integer(self, minimum: int, maximum: int = 2**24) -> int:
        """Return an integer within [minimum, maximum]."""
        is_integer = isinstance(self.value, int) and not isinstance(self.value, bool)
        if not is_integer or not minimum <= self.value <= maximum:
            raise self.refuse(f"an integer from {minimum} to {maximum}")
        return int(self.value)

    def number(self, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """Return a finite number within [minimum, maximum]."""
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        try:
            if is_number and math.isfinite(self.value) and minimum <= self.value <= maximum:
                return float(self.value)
        except OverflowError:  # an integer beyond the range of floats
            pass
        is_bounded = math.isfinite(minimum)
        raise self.refuse(f"a number from {minimum} to {maximum}" if is_bounded else FINITE)

    def names(self) -> tuple[str, ...]:
        """Return a list of texts, none of them twice."""
        names = tuple(item.text() for item in self)
        if len(set(names)) != len(names):
            raise self.refuse("names that differ")
        return names

    def numbers(self) -> tuple[float, ...]:
        """Return a list of finite numbers that is not empty."""
        numbers = tuple(item.number() for item in self)
        if not numbers:
            raise self.refuse("a list of numbers")
        return numbers

    def rows(self) -> tuple[tuple[float, ...], ...]:
        """Return a list of numbers as one row, or a list of lists of one length as its rows."""
        if not isinstance(self.value, list) or not self.value:
            raise self.refuse("a list of numbers, or a list of such lists")
        if not isinstance(self.value[0], list):
            return (self.numbers(),)
        rows = tuple(item.numbers() for item in self)
        if len({len(row) for row in rows}) != 1:
            raise self.refuse("rows of one length")
        return rows


def parse_json(text: bytes, where: str) -> JsonValue:
    """Return the value of a JSON text.

    Raises:
        CheckpointError: the text is no JSON, or nested too deeply.
    """
    try:
        return JsonValue(json.loads(text), where)
    except (ValueError, RecursionError) as problem:
        raise CheckpointError(
            f"{where} is not JSON: {problem}", expected="a JSON object", remedy=AGAIN
        ) from problem
