"""memory_table: estimates of memory side by side, for a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from grpo_ros.training import memory
from grpo_ros.training.memory import MemoryEstimate
from grpo_ros.training.memory_measured import PEAK

Cells = Mapping[str, int | str]
"""Row -> bytes or text."""

ORDER = (
    memory.FROZEN,
    memory.TRAINED,
    memory.GRADIENTS,
    memory.MOMENTS,
    memory.AVERAGE,
    memory.REFERENCE,
    memory.CASTS,
    memory.ACTIVATIONS,
    memory.ACTING,
    memory.PERCEIVED,
    memory.SAMPLED,
    memory.OUTCOMES,
    memory.NOISE,
    memory.STACKING,
    memory.MINIBATCH,
    memory.CRITIC,
    memory.CRITIC_GRADIENTS,
    memory.CRITIC_MOMENTS,
    memory.CRITIC_INPUT,
)
CHECKPOINTED, KEPT = "  with gr00t.checkpointing", "  without gr00t.checkpointing"
TYPES = "  held in"
ALL = "total, all at one time"
CRITIC_SHARE = "  what the critic adds to it"
ESTIMATED = (
    "Estimates until measured on a GPU: what has a * comes from layer sizes, the rest is counted."
)


@dataclasses.dataclass(frozen=True)
class Compared:
    """An estimate, and what was measured of it; empty: nothing was."""

    estimate: MemoryEstimate
    measured: Mapping[str, int]


def memory_table(compared: Sequence[Compared]) -> str:
    """Return the table: a column for each method, rows for each item, GB = 10^9 bytes.

    A row in which algorithms differ is printed once for each. The last line says what is an
    estimate.
    """
    columns: dict[str, dict[str, Cells]] = {}
    for one in compared:
        algorithm, title = one.estimate.algorithm.upper(), one.estimate.method or "bytes"
        columns.setdefault(title, {})[algorithm] = _estimated_cells(one.estimate)
        if one.measured:
            columns.setdefault(f"{title}, measured", {})[algorithm] = _measured_cells(one)
    estimates = [one.estimate for one in compared]
    rows = [["", "where", *columns]]
    for name in _names(estimates):
        rows += _rows(name, list(columns.values()), _place(name, estimates))
    return "\n".join([*_head(estimates), "", *_aligned(rows), "", *_advice(estimates), ESTIMATED])


def _head(estimates: Sequence[MemoryEstimate]) -> list[str]:
    """Return what is counted: the model's parts, and how large rollout and minibatch are."""
    policy = estimates[0].policy
    parts = ", ".join(f"{name} {_count(num)}" for name, num in policy.parts.items())
    num = sum(policy.parts.values()) or policy.frozen.num + policy.trained.num
    lines = [f"{policy.name}: {_count(num)} parameters ({parts})"]
    lines += [
        f"{e.method}: {_count(e.policy.trained.num)} parameters learn"
        for e in {e.method: e for e in estimates}.values()
        if e.method
    ]
    for e in {e.algorithm: e for e in estimates}.values():
        lines.append(
            f"{e.algorithm.upper()}: rollouts x decisions {e.setting} = {e.rows} rows, "
            f"minibatches of {e.minibatch}"
        )
    return lines


def _advice(estimates: Sequence[MemoryEstimate]) -> list[str]:
    """Return what to change where activations are the larger part."""
    worst = max(estimates, key=lambda e: e.bytes_of(memory.ACTIVATIONS))
    if worst.bytes_of(memory.ACTIVATIONS) <= worst.total() / 2:
        return []
    per_row = {e.method: e.bytes_of(memory.ACTIVATIONS) / e.minibatch for e in estimates}
    named = ", ".join(f"{m} {_size(round(v))}" for m, v in per_row.items())
    return [
        f"Activations are most of it, per row of a minibatch: {named}; "
        "algorithm.minibatch_size:=N changes how many rows there are."
    ]


def _names(estimates: Sequence[MemoryEstimate]) -> list[str]:
    """Return the rows in order."""
    found = {item.name for e in estimates for item in e.items if item.num_bytes}
    names: list[str] = []
    for name in ORDER:
        if name not in found:
            continue
        names.append(name)
        if name == memory.TRAINED:
            names.append(TYPES)
        if name == memory.ACTIVATIONS and any(e.policy.acting for e in estimates):
            names.append(_other(estimates[0]))
    devices = sorted({item.device for e in estimates for item in e.items})
    names += [_total(device) for device in devices]
    names += [ALL] if len(devices) > 1 else []
    return [*names, CRITIC_SHARE, PEAK]


def _other(estimate: MemoryEstimate) -> str:
    """Return the row of what activations would be with checkpointing the other way."""
    return KEPT if estimate.policy.is_checkpointed else CHECKPOINTED


def _total(device: str) -> str:
    return f"total, {device}"


def _estimated_cells(estimate: MemoryEstimate) -> dict[str, int | str]:
    cells: dict[str, int | str] = {item.name: item.num_bytes for item in estimate.items}
    cells[_other(estimate)] = estimate.other_activations
    policy = estimate.policy
    cells[TYPES] = " and ".join(sorted({*policy.frozen.types, *policy.trained.types}))
    for device in {item.device for item in estimate.items}:
        cells[_total(device)] = estimate.total(device)
    cells[ALL] = estimate.total()
    if estimate.algorithm == "ppo":
        cells[CRITIC_SHARE] = f"{estimate.critic_share:.2%}"
    return cells


def _measured_cells(one: Compared) -> Cells:
    return dict(one.measured)


def _place(name: str, estimates: Sequence[MemoryEstimate]) -> str:
    """Return where an item is, with a * where it is estimated."""
    for item in (item for e in estimates for item in e.items):
        if item.name == name and item.num_bytes:
            return item.device + ("*" if item.is_estimate else "")
    return "*" if name.startswith("total") or name in (CHECKPOINTED, KEPT) else ""


def _rows(name: str, columns: Sequence[Mapping[str, Cells]], place: str) -> list[list[str]]:
    """Return one row, or one for each algorithm where they differ."""
    algorithms = list(columns[0])
    found: dict[str, list[str]] = {
        algorithm: [_cell(column.get(algorithm, {}).get(name)) for column in columns]
        for algorithm in algorithms
    }
    if not any(cell != "-" for cells in found.values() for cell in cells):
        return []
    if len({tuple(cells) for cells in found.values()}) == 1:
        return [[name, place, *found[algorithms[0]]]]
    return [
        [f"{name} ({algorithm})", place, *cells]
        for algorithm, cells in found.items()
        if any(cell != "-" for cell in cells)
    ]


def _cell(value: int | str | None) -> str:
    if value is None:
        return "-"
    return _size(value) if isinstance(value, int) else value


def _size(num_bytes: int) -> str:
    """Return bytes in GB, MB or kB, powers of 1000."""
    if not num_bytes:
        return "0"
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= 0.1 * factor:
            return f"{num_bytes / factor:.{2 if num_bytes < 1e2 * factor else 0}f} {unit}"
    return f"{num_bytes / 1e3:.1f} kB"


def _count(num: int) -> str:
    return f"{num / 1e6:.1f} M" if num >= 1e6 else f"{num / 1e3:.1f} k"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
