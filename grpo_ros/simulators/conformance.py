"""The conformance suite: what every simulator adapter has to show, on its real engine.

Each check raises `NonConformance` with what differed. `run_conformance` runs all of them and
reports, so that a backend which a test machine does not have can be checked where it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor

from grpo_ros import randomness
from grpo_ros.errors import GrpoRosError
from grpo_ros.randomness import Key
from grpo_ros.simulators.base import Simulator
from grpo_ros.simulators.snapshot import Snapshot

NUM_ENVS = 8


class NonConformance(GrpoRosError):
    """A simulator does not do what the protocol promises."""


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it held, and what differed."""

    name: str
    passed: bool
    detail: str = ""


class Simulators:
    """Makes simulators for the checks, one at a time: some engines allow a process no second.

    Args:
        make: number of environments -> simulator.
    """

    def __init__(self, make: Callable[[int], Simulator]) -> None:
        self._make = make
        self._open: Simulator | None = None

    def get(self, num_envs: int = NUM_ENVS) -> Simulator:
        """Return the open simulator if it has that many environments, else another one."""
        if self._open is None or self._open.num_envs != num_envs:
            return self.another(num_envs)
        return self._open

    def another(self, num_envs: int = NUM_ENVS) -> Simulator:
        """Close the open simulator; return a new one."""
        self.close()
        self._open = self._make(num_envs)
        return self._open

    def close(self) -> None:
        """Close the open simulator, if there is one."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Simulators:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()


def run_conformance(
    make: Callable[[int], Simulator],
    on_result: Callable[[CheckResult], None] = lambda result: None,
) -> list[CheckResult]:
    """Run every check; call `on_result` after each."""
    results = []
    with Simulators(make) as simulators:
        for check in CHECKS:
            try:
                check(simulators)
                results.append(CheckResult(check.__name__, True))
            except GrpoRosError as problem:
                results.append(CheckResult(check.__name__, False, str(problem)))
            on_result(results[-1])
    return results


def group_starts_bit_equal(simulators: Simulators) -> None:
    """One row in G environments gives G equal hashes and equal first observations."""
    simulator = _started(simulators.get())
    row = simulator.snapshot([2])
    obs = simulator.restore(row, [0] * NUM_ENVS)
    _expect_one(simulator.snapshot().row_hashes(), "hashes after a restore")
    for name, value in obs.items():
        _expect(bool((value == value[:1]).all()), f"observation '{name}' differs in a group")


def group_stays_bit_equal_under_equal_actions(simulators: Simulators) -> None:
    """The members of a group follow one trajectory under the same actions."""
    simulator = _started(simulators.get())
    simulator.restore(simulator.snapshot([1]), [0] * NUM_ENVS)
    for chunk in _chunks(simulator, 6):
        result = simulator.step(chunk[:1].expand_as(chunk))
        _expect_one(simulator.snapshot().row_hashes(), "hashes along a trajectory")
        _expect(bool((result.score == result.score[0]).all()), "scores differ in a group")


def restore_in_mid_episode_is_exact(simulators: Simulators) -> None:
    """A restored environment continues bit for bit like the one that was never interrupted."""
    simulator = _started(simulators.get())
    chunks = _chunks(simulator, 8)
    for chunk in chunks[:3]:
        simulator.step(chunk)
    middle = simulator.snapshot()
    expected = []
    for chunk in chunks[3:]:
        simulator.step(chunk)
        expected.append(simulator.snapshot().row_hashes())
    order = [3, 1, 0, 2, 7, 5, 4, 6]
    simulator.restore(middle, order)
    for chunk, want in zip(chunks[3:], expected, strict=True):
        simulator.step(chunk[order])
        got = simulator.snapshot().row_hashes()
        _expect(got == [want[i] for i in order], "a restored episode left the original's path")


def subset_restore_leaves_others_alone(simulators: Simulators) -> None:
    """Restoring some environments does not touch the rest, now or later."""
    simulator = _started(simulators.get())
    chunks = _chunks(simulator, 4)
    simulator.step(chunks[0])
    early = simulator.snapshot([0])
    simulator.step(chunks[1])
    middle = simulator.snapshot()
    before = middle.row_hashes()
    simulator.step(chunks[2])
    undisturbed = simulator.snapshot().row_hashes()
    simulator.restore(middle, range(NUM_ENVS))
    simulator.restore(early, [0, 0], [1, 3])
    after = simulator.snapshot().row_hashes()
    rest = [i for i in range(NUM_ENVS) if i not in (1, 3)]
    untouched = all(before[i] == after[i] for i in rest)
    _expect(untouched, "a restore changed environments that were not named")
    _expect(
        after[1] == after[3] == early.row_hashes()[0], "named environments differ from the row"
    )
    simulator.step(chunks[2])
    later = simulator.snapshot().row_hashes()
    untouched = all(undisturbed[i] == later[i] for i in rest)
    _expect(untouched, "a restore disturbed what other environments did next")


def finished_environments_freeze(simulators: Simulators) -> None:
    """After its end an environment changes in nothing, and executes nothing."""
    simulator = _started(simulators.get())
    chunk_size = simulator.contract.chunk_size
    for chunk in _chunks(simulator, -(-simulator.task.horizon // chunk_size)):
        result = simulator.step(chunk)
    _expect(bool((result.terminated | result.truncated).all()), "an episode outlived its horizon")
    before = simulator.snapshot().row_hashes()
    result = simulator.step(torch.ones_like(chunk))
    _expect(not bool(result.executed.any()), "a finished environment executed an action")
    _expect(before == simulator.snapshot().row_hashes(), "a finished environment changed")


def initial_states_are_distinct_and_repeatable(simulators: Simulators) -> None:
    """Keys give the same initial states every time, and different keys different ones."""
    simulator = simulators.get()
    keys = [Key(7, 1, group) for group in range(NUM_ENVS)]
    simulator.reset(simulator.task.sample(keys), None, keys)
    first = simulator.snapshot().row_hashes()
    _expect(len(set(first)) == NUM_ENVS, "two keys gave the same initial state")
    for env, key in enumerate(keys):
        simulator.reset(simulator.task.sample([key]), [env], [key])
    _expect(first == simulator.snapshot().row_hashes(), "a key gave another state when alone")


def serialised_snapshot_is_exact(simulators: Simulators) -> None:
    """A snapshot survives bytes, and restores into another simulator of the same kind."""
    simulator = _started(simulators.get())
    chunks = _chunks(simulator, 5)
    for chunk in chunks[:2]:
        simulator.step(chunk)
    written = simulator.snapshot()
    read = Snapshot.from_bytes(written.to_bytes())
    _expect(read.row_hashes() == written.row_hashes(), "bytes changed a snapshot")
    for chunk in chunks[2:]:
        simulator.step(chunk)
    expected = simulator.snapshot().row_hashes()
    other = simulators.another()
    other.restore(read, range(NUM_ENVS))
    for chunk in chunks[2:]:
        other.step(chunk)
    equal = expected == other.snapshot().row_hashes()
    _expect(equal, "a serialised snapshot took another path in another simulator")


def row_does_not_depend_on_batch(simulators: Simulators) -> None:
    """An environment does the same alone as in a batch."""
    simulator = _started(simulators.get())
    chunks = _chunks(simulator, 6)
    start = simulator.snapshot()
    results = [simulator.step(chunk) for chunk in chunks]
    expected = simulator.snapshot([4]).row_hashes()
    alone = simulators.get(1)
    alone.restore(start, [4])
    for chunk, result in zip(chunks, results, strict=True):
        single = alone.step(chunk[4:5])
        for name, value in result.obs.items():
            _expect(torch.equal(value[4:5], single.obs[name]), f"'{name}' depends on the batch")
        equal = torch.equal(result.reward_terms[4:5], single.reward_terms)
        _expect(equal, "rewards depend on the batch")
    _expect(expected == alone.snapshot().row_hashes(), "state depends on the batch")


CHECKS = (
    group_starts_bit_equal,
    group_stays_bit_equal_under_equal_actions,
    restore_in_mid_episode_is_exact,
    subset_restore_leaves_others_alone,
    finished_environments_freeze,
    initial_states_are_distinct_and_repeatable,
    serialised_snapshot_is_exact,
    row_does_not_depend_on_batch,
)


def _started(simulator: Simulator) -> Simulator:
    keys = [Key(3, 0, group) for group in range(simulator.num_envs)]
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
