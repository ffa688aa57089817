"""Failed rollouts of a real run: kept exactly, replayed bit for bit, branched, filmed."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from grpo_ros.cli import main
from grpo_ros.configuration import load_config
from grpo_ros.errors import ReplayError
from grpo_ros.simulators.mujoco.renderer import rendering_problem
from grpo_ros.training.failures.command import where_lost
from grpo_ros.training.failures.failure import FailureId
from grpo_ros.training.failures.of_run import ReplayedRun
from grpo_ros.training.failures.replay import Branch, Branches, replay, spread_decisions
from grpo_ros.training.failures.store import FailureStore
from grpo_ros.training.rollout import Rollout
from grpo_ros.training.trainer import Trainer

SMALL = (
    "collection.num_groups=3",
    "collection.group_size=4",
    "collection.env_steps=1300",
    "demonstrations.episodes=4",
    "behaviour_cloning.num_steps=60",
    "evaluation.every_iterations=5",
    "evaluation.episodes=8",
    "evaluation.final_episodes=12",
    "film=false",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    trainer = Trainer(load_config([*SMALL, f"output={output}"]))
    trainer.run()
    return ReplayedRun(trainer.run_directory.path)


def test_every_failure_of_the_run_is_kept(run):
    kept = run.store.failures()
    entries = [json.loads(line) for line in run.run.metrics.read_text().splitlines()]
    failures = {e["iteration"]: round((1.0 - e["train_success"]) * 12) for e in entries[1:]}
    found = {i: sum(f.id.iteration == i - 1 for f in kept) for i in failures}
    assert found == failures and sum(found.values()) > 0
    assert all(f.score < 1.0 and 0.0 <= f.group_success < 1.0 for f in kept)


def test_each_ends_in_the_very_state_it_ended_in_then(run):
    kept = run.store.failures()
    for failure in (kept[0], kept[len(kept) // 2], kept[-1]):
        with run.opened(failure.id) as opened:  # one environment, where training had twelve
            again = opened.replayed
        assert again.is_exact and not again.outcome
        assert again.score == failure.score
        assert len(again.scenes) == 1 + failure.num_steps


def test_one_bit_of_an_action_is_enough_to_end_elsewhere(run):
    failure = run.store.failures()[0]
    with run.opened(failure.id) as opened:
        chunks = failure.chunks.clone()
        chunks[0, 0, 0] = torch.nextafter(chunks[0, 0, 0], torch.tensor(0.0))
        changed = dataclasses.replace(failure, chunks=chunks)
        assert not replay(opened.simulator, changed).is_exact


def test_branches_go_on_from_the_exact_moment(run):
    failure = run.store.failures()[0]
    last = int(failure.executed.any(dim=1).sum()) - 1
    with run.opened(failure.id, [0, last], members=3) as opened:
        again = opened.replayed
        branches = opened.branch(seed=1)
        rollout = branches.rollout
        assert [point.decision for point in branches.points] == [0, last]
        assert all(point.num == 3 for point in branches.points)
        assert branches.points[1].time_s == pytest.approx(
            float(failure.executed[:last].sum()) * opened.period_s
        )
        # At the last decision there is time for one more, and no more than was left then.
        assert rollout.executed[3:].sum() <= 3 * failure.executed[last].sum()
        assert again.states.rows([last]).row_hashes() != again.states.rows([0]).row_hashes()
        same = opened.branch(seed=1).rollout
        other = opened.branch(seed=2).rollout
    assert torch.equal(same.sample.chunk, rollout.sample.chunk)
    assert not torch.equal(other.sample.chunk, rollout.sample.chunk)


def test_a_decision_that_never_was_is_refused(run):
    failure = run.store.failures()[0]
    with (
        run.opened(failure.id, [999], members=1) as opened,
        pytest.raises(ReplayError, match="decision 999 .*; expected 0 to"),
    ):
        opened.branch(seed=0)


def test_a_held_out_episode_ends_as_it_was_counted(run):
    numbers, num = run.held_out_failures()
    assert num == 12 and numbers
    with run.opened(FailureId(held_out=numbers[0])) as opened:
        again = opened.replayed
    assert again.is_exact and not again.outcome


def test_a_run_repeated_keeps_the_same_bytes(run, tmp_path):
    trainer = Trainer(load_config([*SMALL, f"output={tmp_path}"]))
    trainer.run()
    first = {path.name: path.read_bytes() for path in run.store.folder.iterdir()}
    second = {p.name: p.read_bytes() for p in trainer.run_directory.failures.iterdir()}
    assert first == second


def test_what_is_kept_has_no_effect_on_results(run, tmp_path):
    trainer = Trainer(load_config([*SMALL, f"output={tmp_path}", "failures.keep_mb=0"]))
    trainer.run()
    assert not trainer.run_directory.failures.exists()
    assert trainer.run_directory.metrics.read_text() == run.run.metrics.read_text()


def test_the_command_lists_replays_branches_and_films(run, capsys):
    failure = run.store.failures()[0]
    assert main(["replay", "--run", str(run.path)]) == 0
    listed = capsys.readouterr().out
    assert str(failure.id) in listed and "of 12 held-out episodes failed" in listed
    name = str(failure.id)
    assert main(["replay", name, "--run", str(run.path), "--members", "6"]) == 0
    told = capsys.readouterr().out
    assert f"rollout {name}: failed after {failure.num_steps} control periods" in told
    assert f"bit for bit: it ends in state {failure.final_hash}" in told
    assert "of 6 succeed" in told
    folder = run.path / "replays" / name.replace("/", "-")
    report = json.loads((folder / "replay.json").read_text())
    assert report["is_exact"] and len(report["branches"]) > 1
    if not rendering_problem():
        for film in ("replay.webp", "branches.webp"):
            assert (folder / film).read_bytes()[8:12] == b"WEBP"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["12-3-5"], "rollout '12-3-5'; expected iteration/group/member"),
        (["9999/0/0"], "nothing is kept of iteration 9999; expected"),
        (["0/77/0"], "is not among the failures of iteration 0"),
        (["--run", "/nowhere"], "/nowhere; expected a run's folder"),
    ],
)
def test_what_is_not_there_is_refused_in_a_line(run, capsys, arguments, told):
    assert main(["replay", "--run", str(run.path), *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_damaged_file_is_named(run, tmp_path):
    source = next(iter(run.store.folder.iterdir()))
    damaged = tmp_path / source.name
    for content in (b"", b"\x80\x04pickle", source.read_bytes()[:-40]):
        damaged.write_bytes(content)
        with pytest.raises(ReplayError, match=f"{source.name} cannot be read"):
            FailureStore(tmp_path).failures()


def test_the_oldest_are_dropped_and_the_newest_stays(run, tmp_path):
    failure = run.store.failures()[0]
    store = FailureStore(tmp_path, keep_mb=0.02)
    rollout = rollout_of(failure.chunks, failure.executed)
    for iteration in range(20):
        store.keep(iteration, [4], failure.start, ["state"], rollout)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    kept = sorted(each.id.iteration for each in store.failures())
    assert sum(sizes) <= 0.02e6 < sum(sizes) + max(sizes)
    assert kept == list(range(20 - len(kept), 20))
    tiny = FailureStore(tmp_path, keep_mb=1e-6)
    tiny.keep(20, [4], failure.start, ["state"], rollout)
    assert [str(each.id) for each in tiny.failures()] == ["20/4/0"]


def rollout_of(chunk: torch.Tensor, executed: torch.Tensor) -> Rollout:
    """Return one failed episode in a group of one."""
    from grpo_ros.policies.base import ActionSample

    nothing = torch.zeros(1)
    return Rollout(
        obs={},
        sample=ActionSample(chunk.unsqueeze(0), torch.zeros(1, len(chunk)), {}),
        executed=executed.unsqueeze(0),
        reward_terms=torch.zeros(1, *executed.shape, 1),
        terminated=nothing.bool(),
        truncated=~nothing.bool(),
        final_obs={},
        outcome=nothing,
        score=nothing,
        step_count=nothing.long(),
        time_limit=100,
        num_groups=1,
        group_size=1,
        reward_names=("outcome",),
    )


def test_an_episode_that_is_not_a_number_failed():
    from grpo_ros.training.failures.store import failed

    rollout = rollout_of(torch.zeros(2, 1, 3), torch.ones(2, 1).bool())
    broken = dataclasses.replace(rollout, outcome=torch.tensor([float("nan")]))
    assert failed(broken).tolist() == [True]


@pytest.mark.parametrize(
    ("successes", "told"),
    [
        ((9, 8, 2, 0), "lost between 1.00 s (8 of 10 still succeed) and 2.00 s (2 of 10)"),
        ((1, 2, 0, 0), "from no moment of it do half succeed"),
        ((9, 2, 3, 7), "could still be saved"),
    ],
)
def test_it_says_where_a_rollout_was_lost(successes, told):
    points = [Branch(i, float(i), count, 10) for i, count in enumerate(successes)]
    assert told in where_lost(Branches(points, rollout=None))


def test_moments_are_spread_from_the_first_to_the_last():
    assert spread_decisions(3, 12) == [0, 1, 2]
    assert spread_decisions(100, 5) == [0, 25, 50, 74, 99]
    assert spread_decisions(1, 5) == [0]
