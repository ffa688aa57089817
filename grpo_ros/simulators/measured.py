"""What a simulator's snapshots are worth, measured on the simulator that will be used."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from grpo_ros.randomness import Key, normal
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot

LEAD_STEPS, NUM_STEPS = 3, 6
"""Control steps before the snapshot, and from it on."""


@dataclasses.dataclass(frozen=True)
class MeasuredCapabilities:
    """What `measure` saw.

    Attributes:
        engine: what was measured.
        exact_mid_episode: restored episodes repeated the uninterrupted ones bit for bit.
        bit_equal_group: copies of one row stayed bit-equal under equal actions.
        restore_drift, group_drift: largest difference of any number of the state; 0 where equal.
        num_envs, control_steps: how many took part, for how long.
    """

    engine: str
    exact_mid_episode: bool
    bit_equal_group: bool
    restore_drift: float
    group_drift: float
    num_envs: int
    control_steps: int

    def __str__(self) -> str:
        mid = "exact" if self.exact_mid_episode else f"off by up to {self.restore_drift:.1e}"
        group = "bit-equal" if self.bit_equal_group else f"apart by up to {self.group_drift:.1e}"
        return (
            f"{self.engine}: after {self.control_steps} steps from one snapshot, groups are "
            f"{group}, restored episodes {mid} ({self.num_envs} environments)"
        )


def measure(simulator: Simulator) -> MeasuredCapabilities:
    """Measure restores and groups on all environments; leaves them in the middle of an episode."""
    num_envs = simulator.num_envs
    keys = [Key(17, 0, group) for group in range(num_envs)]
    shape = (LEAD_STEPS + NUM_STEPS, simulator.contract.action_size)
    actions = normal("measure", keys, shape)
    simulator.reset(simulator.task.sample(keys), None, keys)
    _run(simulator, actions[:, :LEAD_STEPS])
    middle = simulator.snapshot()
    uninterrupted = _run(simulator, actions[:, LEAD_STEPS:])
    simulator.restore(middle, range(num_envs))
    restored = _run(simulator, actions[:, LEAD_STEPS:])
    simulator.restore(middle, [0] * num_envs)
    group = _run(simulator, actions[:1, LEAD_STEPS:].expand(num_envs, -1, -1))
    first = group.rows([0] * num_envs)
    return MeasuredCapabilities(
        engine=middle.engine,
        exact_mid_episode=restored.row_hashes() == uninterrupted.row_hashes(),
        bit_equal_group=len(set(group.row_hashes())) == 1,
        restore_drift=_difference(restored, uninterrupted),
        group_drift=_difference(group, first),
        num_envs=num_envs,
        control_steps=NUM_STEPS,
    )


def _run(simulator: Simulator, actions: Tensor) -> Snapshot:
    """Carry out actions (N, T, A), one at a time; return the state after them."""
    for step in range(actions.shape[1]):
        simulator.step(actions[:, step : step + 1].float().contiguous())
    return simulator.snapshot()


def _difference(one: Snapshot, other: Snapshot) -> float:
    """Return the largest difference of any number; infinite where one of two is not a number."""
    gaps = [
        torch.where(array == other.arrays[name], 0.0, (array - other.arrays[name]).abs())
        for name, array in one.arrays.items()
        if array.is_floating_point() and array.numel()
    ]
    return max(float(gap.nan_to_num(nan=torch.inf).max()) for gap in gaps)
