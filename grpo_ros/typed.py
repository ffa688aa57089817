"""Typed trees: frozen dataclasses to and from plain JSON values, every mistake named.

Configuration and contract are both such trees. A field is declared once, with `setting(...)` where
it has a description, a unit or a range; decoding checks types, ranges, choices and unknown keys.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

from grpo_ros.errors import ConfigurationError, GrpoRosError, nearest


def setting(
    default: Any = dataclasses.MISSING,
    description: str = "",
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    factory: Any = dataclasses.MISSING,
) -> Any:
    """Declare a dataclass field with its description, unit and inclusive range."""
    metadata = {"description": description, "unit": unit, "minimum": minimum, "maximum": maximum}
    if factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def field_types(cls: Hashable) -> dict[str, Any]:
    """Return the resolved annotations of a dataclass."""
    return typing.get_type_hints(typing.cast(type, cls))


def encode(value: Any) -> Any:
    """Return plain JSON values (dict, list, str, int, float, bool, None) of a typed tree."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def decode[T](
    cls: type[T], data: Any, path: str = "", error: type[GrpoRosError] = ConfigurationError
) -> T:
    """Build a dataclass from plain values.

    Args:
        cls: the dataclass.
        data: a mapping of its fields; absent fields take their defaults.
        path: where in the whole tree this is, for messages.
        error: what to raise.

    Raises:
        error: an unknown key, a missing field, a wrong type, choice or range; names the key.
    """
    if not isinstance(data, Mapping):
        raise error(f"'{path or cls.__name__}' is {data!r}", expected="a mapping of settings")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise error(
                f"unknown key '{_join(path, str(key))}' = {data[key]!r}",
                remedy=nearest(str(key), fields),
            )
    hints = field_types(typing.cast(Hashable, cls))
    values = {}
    for name, field in fields.items():
        where = _join(path, name)
        if name in data:
            values[name] = _value(hints[name], data[name], where, error)
            _check_range(field, values[name], where, error)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"'{where}' is missing", expected=_describe(hints[name]))
    try:
        return cls(**values)
    except GrpoRosError as problem:
        raise error(f"'{path or cls.__name__}': {problem}") from problem


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_range(
    field: dataclasses.Field[Any], value: Any, where: str, error: type[GrpoRosError]
) -> None:
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        too_low = low is not None and number < low
        if too_low or (high is not None and number > high):
            unit = f" {field.metadata['unit']}" if field.metadata.get("unit") else ""
            raise error(
                f"'{where}' = {number!r}",
                expected=f"a value in [{'-inf' if low is None else low}, "
                f"{'inf' if high is None else high}]{unit}",
            )


def _describe(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(repr(choice) for choice in get_args(hint))
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)


def _value(hint: Any, data: Any, where: str, error: type[GrpoRosError]) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), data, where, error)
    if origin in (Union, types.UnionType):
        return _union(hint, args, data, where, error)
    if origin is Literal:
        if data in args:
            return data
        remedy = nearest(str(data), map(str, args))
        raise error(f"'{where}' = {data!r}", expected=_describe(hint), remedy=remedy)
    if origin is tuple:
        return _tuple(args, data, where, error)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise error(f"'{where}' = {data!r}", expected="a mapping")
        return {str(k): _value(args[1], v, _join(where, str(k)), error) for k, v in data.items()}
    return _scalar(hint, data, where, error)


def _union(
    hint: Any, args: tuple[Any, ...], data: Any, where: str, error: type[GrpoRosError]
) -> Any:
    if data is None and type(None) in args:
        return None
    choices = [arg for arg in args if arg is not type(None)]
    if len(choices) == 1:
        return _value(choices[0], data, where, error)
    for choice in choices:
        try:
            return _value(choice, data, where, error)
        except error:
            continue
    raise error(f"'{where}' = {data!r}", expected=str(hint))


def _tuple(args: tuple[Any, ...], data: Any, where: str, error: type[GrpoRosError]) -> Any:
    if not isinstance(data, list | tuple):
        raise error(f"'{where}' = {data!r}", expected="a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_value(args[0], item, f"{where}[{i}]", error) for i, item in enumerate(data))
    if len(data) != len(args):
        raise error(f"'{where}' has {len(data)} entries", expected=f"{len(args)} entries")
    return tuple(
        _value(arg, item, f"{where}[{i}]", error)
        for i, (arg, item) in enumerate(zip(args, data, strict=True))
    )


def _scalar(hint: Any, data: Any, where: str, error: type[GrpoRosError]) -> Any:
    if hint is float and isinstance(data, int | float) and not isinstance(data, bool):
        try:
            value = float(data)
        except OverflowError:
            raise error(f"'{where}' is larger than a float can be", expected="a float") from None
        if math.isnan(value):
            raise error(f"'{where}' is not a number", expected="a float")
        return value
    if hint is int and isinstance(data, float) and data.is_integer():
        return int(data)
    is_bool_for_int = hint is int and isinstance(data, bool)
    if isinstance(hint, type) and isinstance(data, hint) and not is_bool_for_int:
        return data
    raise error(f"'{where}' = {data!r}", expected=_describe(hint))
