"""ROS parameters made from a typed tree: nothing is declared twice.

Each setting becomes one parameter with a dotted name, its type, description, unit and range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.parameter import Parameter

from grpo_ros.layers import Layer, merge
from grpo_ros.overrides import Leaf, insert, leaves

Type = Parameter.Type
SCALARS = {bool: Type.BOOL, int: Type.INTEGER, float: Type.DOUBLE, str: Type.STRING}
ARRAYS = {
    bool: Type.BOOL_ARRAY,
    int: Type.INTEGER_ARRAY,
    float: Type.DOUBLE_ARRAY,
    str: Type.STRING_ARRAY,
}
INT_LIMIT, FLOAT_LIMIT = 2**62, 1e300
"""Stand for "no bound" in a range that has only one."""
NOT_SETTINGS = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters that every node has, or may have."""


def given_parameters(node: Any) -> dict[str, Any]:
    """Return what files and command line gave the node: dotted name -> value.

    The node has to be made with automatically_declare_parameters_from_overrides=True.
    """
    return {
        name: _plain(parameter.value)
        for name, parameter in node.get_parameters_by_prefix("").items()
        if name.split(".")[0] not in NOT_SETTINGS
    }


def declare_parameters(node: Any, tree: Any, *, read_only: bool = True) -> None:
    """Declare every setting of a typed tree with its present value.

    Args:
        node: what was declared from overrides is declared anew.
        tree: a dataclass instance.
        read_only: whether setting a parameter later is refused.
    """
    for leaf in leaves(tree):
        if node.has_parameter(leaf.key):
            node.undeclare_parameter(leaf.key)
        kind, value = parameter_type(leaf), leaf.default
        node.declare_parameter(leaf.key, kind, descriptor(leaf, False), ignore_override=True)
        value = list(value) if isinstance(value, tuple) else value
        node.set_parameters([Parameter(leaf.key, kind, value)])
        node.set_descriptor(leaf.key, descriptor(leaf, read_only))


def read_parameters[T](node: Any, defaults: T, *, read_only: bool = True) -> T:
    """Declare a typed tree; return it with the values that files and command line gave.

    Args:
        node: made with or without automatically_declare_parameters_from_overrides.
        defaults: the tree with its default values.
        read_only: whether setting a parameter later is refused.

    Raises:
        ConfigurationError: a value has the wrong type or lies out of range; names the parameter.
    """
    given: dict[str, Any] = {}
    for leaf in leaves(defaults):
        if not node.has_parameter(leaf.key):
            anything = ParameterDescriptor(dynamic_typing=True)
            node.declare_parameter(leaf.key, None, anything)
        value = _plain(node.get_parameter(leaf.key).value)
        insert(given, leaf.key, _plain(leaf.default) if value is None else value)
    config = merge(type(defaults), [Layer("ROS parameters", given)])
    declare_parameters(node, config, read_only=read_only)
    return config


def parameter_type(leaf: Leaf) -> Parameter.Type:
    """Return the ROS type of a setting.

    Raises:
        TypeError: ROS has no parameters of this type.
    """
    origin, args = get_origin(leaf.hint), get_args(leaf.hint)
    found: Mapping[Any, Parameter.Type] = SCALARS
    hint = leaf.hint
    if origin is tuple:
        found, hint = ARRAYS, args[0]
        origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        hint = type(args[0])
    if hint not in found:
        raise TypeError(f"setting '{leaf.key}' of type {leaf.hint} has no ROS parameter type")
    return found[hint]


def descriptor(leaf: Leaf, read_only: bool) -> ParameterDescriptor:
    """Return description, unit, range and choices of a setting."""
    message = ParameterDescriptor(
        name=leaf.key,
        type=parameter_type(leaf).value,
        description=leaf.description + (f" [{leaf.unit}]" if leaf.unit else ""),
        read_only=read_only,
    )
    if get_origin(leaf.hint) is Literal:
        choices = ", ".join(str(choice) for choice in get_args(leaf.hint))
        message.additional_constraints = f"one of: {choices}"
    low, high = leaf.minimum, leaf.maximum
    if low is None and high is None:
        return message
    if message.type == Type.DOUBLE.value:
        span = FloatingPointRange(
            from_value=-FLOAT_LIMIT if low is None else float(low),
            to_value=FLOAT_LIMIT if high is None else float(high),
        )
        message.floating_point_range = [span]
    elif message.type == Type.INTEGER.value:
        span = IntegerRange(
            from_value=-INT_LIMIT if low is None else int(low),
            to_value=INT_LIMIT if high is None else int(high),
            step=1,
        )
        message.integer_range = [span]
    else:  # ROS ranges are for scalars
        bounds = ["-inf" if low is None else f"{low}", "inf" if high is None else f"{high}"]
        message.additional_constraints = f"each in [{', '.join(bounds)}]"
    return message


def _plain(value: Any) -> Any:
    """Return lists for ROS arrays."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return list(value)
