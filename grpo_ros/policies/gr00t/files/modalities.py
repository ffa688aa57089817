"""State and action groups of an embodiment: their places, and the ranges that are normalised.

Read as LeRobot 0.6.1 reads them (lerobot/policies/groot/utils.py, flatten_n1_7_modality_stats).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Literal

from grpo_ros.errors import CheckpointError
from grpo_ros.policies.gr00t.files.json_value import JsonValue

Numbers = tuple[float, ...]
Representation = Literal["ABSOLUTE", "RELATIVE", "DELTA"]
REPRESENTATIONS: tuple[Representation, ...] = ("ABSOLUTE", "RELATIVE", "DELTA")
OTHER_NORMALISATION = "mean_std_embedding_keys"
"""Groups that are not mapped by their range, which LeRobot leaves out without a word."""


@dataclasses.dataclass(frozen=True)
class StateGroup:
    """Consecutive components of the state vector.

    Attributes:
        name: of the group.
        start: index of its first component.
        low, high: (D,) what is mapped to -1 and to 1.
    """

    name: str
    start: int
    low: Numbers
    high: Numbers

    @property
    def size(self) -> int:
        """D, the number of components."""
        return len(self.low)


@dataclasses.dataclass(frozen=True)
class ActionGroup:
    """Consecutive components of an action.

    Attributes:
        name: of the group.
        start: index of its first component.
        low, high: (D,) what -1 and 1 stand for; over all steps, where that depends on the step.
        representation: ABSOLUTE, or RELATIVE to the state when the chunk was decided, or DELTA.
        step_low: (H, D) where what -1 and 1 stand for depends on the step; else empty.
    """

    name: str
    start: int
    low: Numbers
    high: Numbers
    representation: Representation = "ABSOLUTE"
    step_low: tuple[Numbers, ...] = ()

    @property
    def size(self) -> int:
        """D, the number of components."""
        return len(self.low)


def read_state_groups(
    modality: JsonValue, statistics: JsonValue, use_percentiles: bool, max_size: int
) -> tuple[StateGroup, ...]:
    """Return the state groups of an embodiment, in order.

    Args:
        modality: modality_configs <tag> state.
        statistics: of the embodiment.
        use_percentiles: q01 and q99 are the range, not min and max.
        max_size: components that the model takes.

    Raises:
        CheckpointError: a group has no statistics, or they do not fit.
    """
    _refuse_other_normalisation(modality)
    groups: list[StateGroup] = []
    start = 0
    for name in modality["modality_keys"].names():
        low, high = _range(statistics["state"][name], use_percentiles)
        if len(low) != 1:
            raise statistics["state"][name].refuse("one range per component")
        groups.append(StateGroup(name, start, low[0], high[0]))
        start += groups[-1].size
    _check_size(modality, start, max_size)
    return tuple(groups)


def read_action_groups(
    modality: JsonValue,
    statistics: JsonValue,
    use_percentiles: bool,
    use_relative_action: bool,
    max_size: int,
    state_names: Collection[str],
) -> tuple[ActionGroup, ...]:
    """Return the action groups of an embodiment, in order; at least one.

    A group is RELATIVE where its configuration and `use_relative_action` both say so; its range
    is then min and max of `relative_action`, whatever `use_percentiles` says.

    Args:
        modality: modality_configs <tag> action.
        statistics: of the embodiment.
        use_percentiles, use_relative_action: of the processor.
        max_size: components that the model gives.
        state_names: groups that RELATIVE ones may refer to.

    Raises:
        CheckpointError: a group has no statistics, they do not fit, or it is relative to no state.
    """
    _refuse_other_normalisation(modality)
    names = modality["modality_keys"].names()
    horizon = len(list(modality["delta_indices"]))
    configs = list(modality.optional("action_configs", []))
    if configs and len(configs) != len(names):
        raise modality["action_configs"].refuse(f"{len(names)} entries, one per action group")
    groups: list[ActionGroup] = []
    start = 0
    for index, name in enumerate(names):
        config = configs[index] if configs else JsonValue({}, f"{modality.where} action_configs")
        representation = _representation(config)
        if representation == "RELATIVE" and not use_relative_action:
            representation = "ABSOLUTE"
        is_relative = representation == "RELATIVE"
        state_key = config.optional("state_key", name)
        if is_relative and state_key.text() not in state_names:
            raise state_key.refuse(f"a state group: {', '.join(state_names)}")
        entry = statistics["relative_action" if is_relative else "action"][name]
        low, high = _range(entry, use_percentiles and not is_relative)
        if len(low) not in (1, horizon):
            raise entry.refuse(f"one range per component, or one per step ({horizon})")
        group = ActionGroup(
            name,
            start,
            tuple(map(min, zip(*low, strict=True))),
            tuple(map(max, zip(*high, strict=True))),
            representation,
            low if len(low) > 1 else (),
        )
        groups.append(group)
        start += group.size
    if not groups:
        raise modality["modality_keys"].refuse("at least one action group")
    _check_size(modality, start, max_size)
    return tuple(groups)


def _representation(config: JsonValue) -> Representation:
    word = config.optional("rep", "ABSOLUTE").text().upper().replace("+", "_")
    for known in REPRESENTATIONS:
        if word == known:
            return known
    raise config["rep"].refuse(" | ".join(REPRESENTATIONS))


def _range(
    entry: JsonValue, use_percentiles: bool
) -> tuple[tuple[Numbers, ...], tuple[Numbers, ...]]:
    """Return low and high, each as rows (1 or H, D), of a group's statistics."""
    names = ("q01", "q99") if use_percentiles else ("min", "max")
    low, high = (entry[name].rows() for name in names)
    if (len(low), len(low[0])) != (len(high), len(high[0])):
        raise CheckpointError(
            f"{entry.where}: {names[0]} and {names[1]} have {len(low)} x {len(low[0])} and "
            f"{len(high)} x {len(high[0])} numbers",
            expected="as many",
        )
    for name in ("mean", "std", "min", "max", "q01", "q99"):
        if entry.has(name) and (size := len(entry[name].rows()[0])) != len(low[0]):
            raise CheckpointError(
                f"{entry.where}: {name} has {size} components, {names[0]} has {len(low[0])}",
                expected="as many",
            )
    for row_low, row_high in zip(low, high, strict=True):
        if any(a > b for a, b in zip(row_low, row_high, strict=True)):
            raise CheckpointError(
                f"{entry.where}: {names[0]} above {names[1]}", expected=f"{names[0]} <= {names[1]}"
            )
    return low, high


def _refuse_other_normalisation(modality: JsonValue) -> None:
    if modality.optional(OTHER_NORMALISATION, []).value:
        raise modality[OTHER_NORMALISATION].refuse(
            "null: groups are mapped to [-1, 1] by their range",
            remedy="use a checkpoint whose groups are normalised by their range",
        )


def _check_size(modality: JsonValue, size: int, max_size: int) -> None:
    if size > max_size:
        raise CheckpointError(
            f"{modality.where} has {size} components",
            expected=f"at most the {max_size} of the model",
        )
