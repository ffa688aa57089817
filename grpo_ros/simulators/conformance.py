"""The conformance suite: what every simulator adapter has to show, on its real engine.

Each check raises `NonConformance` with what differed. `run_conformance` runs all of them and
reports, so that a backend which a test machine does not have can be checked where it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from grpo_ros import randomness
from grpo_ros.errors import GrpoRosError
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot

MakeSimulator = Callable[[int], Simulator]
"""Number of environments -> simulator."""


class NonConformance(GrpoRosError):
    """A simulator does not do what the protocol promises."""


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it held, and what differed."""

    name: str
    passed: bool
    detail: str = ""


def run_conformance(make: MakeSimulator) -> list[CheckResult]:
    """Run every check on simulators that `make` gives; closes them."""
    results = []
    for check in CHECKS:
        try:
            check(make)
            results.append(CheckResult(check.__name__, True))
        except GrpoRosError as problem:
            results.append(CheckResult(check.__name__, False, str(problem)))
    return results


def group_starts_bit_equal(make: MakeSimulator) -> None:
    """One row in G environments gives G equal hashes and equal first observations."""
    simulator = _started(make, 6)
    row = simulator.snapshot([2])
    obs = simulator.restore(row, [0] * 6)
    _expect_one(simulator.snapshot().row_hashes(), "hashes after a restore")
    for name, value in obs.items():
        _expect(bool((value == value[:1]).all()), f"observation '{name}' differs in a group")
    simulator.close()


def group_stays_bit_equal_under_equal_actions(make: MakeSimulator) -> None:
    """The members of a group follow one trajectory under the same actions."""
    simulator = _started(make, 5)
    simulator.restore(simulator.snapshot([1]), [0] * 5)
    for chunk in _chunks(simulator, 6):
        result = simulator.step(chunk[:1].expand_as(chunk))
        _expect_one(simulator.snapshot().row_hashes(), "hashes along a trajectory")
        _expect(bool((result.score == result.score[0]).all()), "scores differ in a group")
    simulator.close()


def restore_in_mid_episode_is_exact(make: MakeSimulator) -> None:
    """A restored environment continues bit for bit like the one that was never interrupted."""
    simulator = _started(make, 4)
    chunks = _chunks(simulator, 8)
    for chunk in chunks[:3]:
        simulator.step(chunk)
    middle = simulator.snapshot()
    expected = []
    for chunk in chunks[3:]:
        simulator.step(chunk)
        expected.append(simulator.snapshot().row_hashes())
    order = [3, 1, 0, 2]
    simulator.restore(middle, order)
    for chunk, want in zip(chunks[3:], expected, strict=True):
        simulator.step(chunk[order])
        got = simulator.snapshot().row_hashes()
        _expect(got == [want[i] for i in order], "a restored episode left the original's path")
    simulator.close()


def serialised_snapshot_is_exact(make: MakeSimulator) -> None:
    """A snapshot survives bytes, and restores into another simulator of the same kind."""
    simulator, other = _started(make, 3), make(3)
    chunks = _chunks(simulator, 5)
    for chunk in chunks[:2]:
        simulator.step(chunk)
    written = simulator.snapshot()
    read = Snapshot.from_bytes(written.to_bytes())
    _expect(read.row_hashes() == written.row_hashes(), "bytes changed a snapshot")
    other.restore(read, range(3))
    for chunk in chunks[2:]:
        simulator.step(chunk)
        other.step(chunk)
    equal = simulator.snapshot().row_hashes() == other.snapshot().row_hashes()
    _expect(equal, "a serialised snapshot took another path in another simulator")
    simulator.close()
    other.close()


def row_does_not_depend_on_batch(make: MakeSimulator) -> None:
    """An environment does the same alone as in a batch."""
    simulator, alone = _started(make, 7), make(1)
    chunks = _chunks(simulator, 6)
    alone.restore(simulator.snapshot(), [4])
    for chunk in chunks:
        result = simulator.step(chunk)
        single = alone.step(chunk[4:5])
        for name, value in result.obs.items():
            _expect(torch.equal(value[4:5], single.obs[name]), f"'{name}' depends on the batch")
    equal = simulator.snapshot([4]).row_hashes() == alone.snapshot().row_hashes()
    _expect(equal, "state depends on the batch")
    simulator.close()
    alone.close()


def subset_restore_leaves_others_alone(make: MakeSimulator) -> None:
    """Restoring some environments does not touch the rest."""
    simulator = _started(make, 5)
    chunks = _chunks(simulator, 4)
    simulator.step(chunks[0])
    early = simulator.snapshot([0])
    simulator.step(chunks[1])
    before = simulator.snapshot().row_hashes()
    simulator.restore(early, [0, 0], [1, 3])
    after = simulator.snapshot().row_hashes()
    untouched = all(before[i] == after[i] for i in (0, 2, 4))
    _expect(untouched, "a restore changed environments that were not named")
    _expect(
        after[1] == after[3] == early.row_hashes()[0], "named environments differ from the row"
    )
    simulator.close()


def finished_environments_freeze(make: MakeSimulator) -> None:
    """After its end an environment changes in nothing, and executes nothing."""
    simulator = _started(make, 3)
    chunk_size = simulator.contract.chunk_size
    for chunk in _chunks(simulator, -(-simulator.task.horizon // chunk_size)):
        result = simulator.step(chunk)
    _expect(bool((result.terminated | result.truncated).all()), "an episode outlived its horizon")
    before = simulator.snapshot().row_hashes()
    result = simulator.step(torch.ones_like(chunk))
    _expect(not bool(result.executed.any()), "a finished environment executed an action")
    _expect(before == simulator.snapshot().row_hashes(), "a finished environment changed")
    simulator.close()


def initial_states_are_distinct_and_repeatable(make: MakeSimulator) -> None:
    """Keys give the same initial states every time, and different keys different ones."""
    simulator = make(8)
    keys = [Key(7, 1, group) for group in range(8)]
    simulator.reset(simulator.task.sample(keys), None, keys)
    first = simulator.snapshot().row_hashes()
    _expect(len(set(first)) == 8, "two keys gave the same initial state")
    for env, key in enumerate(keys):
        simulator.reset(simulator.task.sample([key]), [env], [key])
    _expect(first == simulator.snapshot().row_hashes(), "a key gave another state when alone")
    simulator.close()


CHECKS = (
    group_starts_bit_equal,
    group_stays_bit_equal_under_equal_actions,
    restore_in_mid_episode_is_exact,
    serialised_snapshot_is_exact,
    row_does_not_depend_on_batch,
    subset_restore_leaves_others_alone,
    finished_environments_freeze,
    initial_states_are_distinct_and_repeatable,
)


def _started(make: MakeSimulator, num_envs: int) -> Simulator:
    simulator = make(num_envs)
    keys = [Key(3, 0, group) for group in range(num_envs)]
    simulator.reset(simulator.task.sample(keys), None, keys)
    return simulator


def _chunks(simulator: Simulator, num: int) -> list[Tensor]:
    """Return random chunks that press the arm onto the table and into the objects."""
    contract = simulator.contract
    keys = [Key(11, 0, 0, env) for env in range(simulator.num_envs)]
    shape = (num, contract.chunk_size, contract.action_size)
    noise = randomness.normal("conformance", keys, shape)
    if contract.action_size > 2:
        noise[..., 2] -= 0.7
    return [noise[:, i] for i in range(num)]


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise NonConformance(what)


def _expect_one(hashes: list[str], what: str) -> None:
    _expect(len(set(hashes)) == 1, f"{len(set(hashes))} different {what}")
