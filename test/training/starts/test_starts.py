"""Where groups start: exact states of initial draws, of rollouts and of demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from grpo_ros.configuration import load_config
from grpo_ros.distributed.ranks import Ranks
from grpo_ros.errors import CheckpointError, ConfigurationError, SimulatorError
from grpo_ros.policies import GaussianConfig, make_policy
from grpo_ros.randomness import Key, uniform
from grpo_ros.simulators.mujoco.simulator import MujocoConfig, MujocoSimulator
from grpo_ros.tasks.pick_place import PickPlace, PickPlaceConfig
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.starts.branch_points import BranchPoints, divergence_scores, highest
from grpo_ros.training.starts.config import StartConfig
from grpo_ros.training.starts.curriculum import Curriculum
from grpo_ros.training.starts.starts import BRANCH, DEMONSTRATION, INITIAL, Starts, make_starts

GROUPS, MEMBERS, HORIZON = 4, 3, 60


@pytest.fixture(scope="module")
def simulator() -> Iterator[MujocoSimulator]:
    task = PickPlace(PickPlaceConfig(horizon=HORIZON))
    simulator = MujocoSimulator(task, GROUPS * MEMBERS, MujocoConfig(num_threads=1))
    yield simulator
    simulator.close()


@pytest.fixture
def policy(simulator):
    policy = make_policy(GaussianConfig(hidden=(16,)), simulator.contract)
    keys = [Key(0, 0, g) for g in range(GROUPS * MEMBERS)]
    policy.fit_statistics(simulator.reset(simulator.task.sample(keys), None, keys))
    return policy


def parts(simulator, policy, **settings):
    starts = Starts(StartConfig(**settings), simulator, policy, seed=0)
    return starts, GroupCollector(simulator, GROUPS, MEMBERS, starts=starts)


def counts(snapshot):
    return snapshot.arrays["step_count"].tolist()


def test_plain_starts_are_those_of_a_collector_without_any(simulator, policy):
    _, collector = parts(simulator, policy)
    plain = GroupCollector(simulator, GROUPS, MEMBERS)
    first, second = (each.collect(policy, 3, 5) for each in (collector, plain))
    for name, value in first.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name
    assert first.starts is None


# ------------------------------------------------------------------ branches


def test_equal_moments_are_drawn_evenly_and_a_better_one_always():
    num, moments = 24_000, 24
    keys = [Key(0, 0, 0, member) for member in range(num)]
    chance = uniform("test", keys, moments)
    counts = torch.bincount(highest(torch.ones(num, moments), chance), minlength=moments)
    deviation = (num / moments) ** 0.5
    assert (counts - num / moments).abs().max() < 5 * deviation
    better = torch.ones(num, moments)
    better[:, 7] += 1e-6
    assert (highest(better, chance) == 7).all()


def test_branches_start_at_the_very_states_that_rollouts_passed_through(simulator, policy):
    starts, collector = parts(simulator, policy, branch_fraction=0.5)
    passed = {}
    note = starts.branches.note
    starts.branches.note = lambda snapshot: (
        passed.update(zip(snapshot.row_hashes(), counts(snapshot), strict=True)),
        note(snapshot),
    )
    first = collector.collect(policy, 0, 0)
    assert first.starts.tolist() == [INITIAL] * GROUPS, "there is nothing to branch off yet"
    starts.learn(first, Key(0, 0))
    keys = [Key(0, 1, group) for group in range(GROUPS)]
    drawn = starts.draw(keys, torch.arange(GROUPS) * MEMBERS)
    assert drawn.kinds.tolist() == [INITIAL] * 2 + [BRANCH] * 2
    branches = drawn.snapshot.rows([2, 3])
    for state, count in zip(branches.row_hashes(), counts(branches), strict=True):
        assert passed[state] == count > 0
    assert counts(drawn.snapshot)[:2] == [0, 0]
    second = collector.collect(policy, 0, 1)
    left = [HORIZON - count for count in counts(branches)]
    taken = second.executed.sum(dim=(1, 2)).view(GROUPS, MEMBERS)[2:]
    assert taken.amax(dim=1).tolist() == left, "what is left of the time limit, and all counted"
    assert second.num_env_steps == int(second.executed.sum())


def test_a_branch_is_not_branched_again(simulator, policy):
    starts, collector = parts(simulator, policy, branch_fraction=1.0)
    starts.learn(collector.collect(policy, 0, 0), Key(0, 0))
    rollout = collector.collect(policy, 0, 1)
    assert (rollout.starts == BRANCH).all()
    starts.learn(rollout, Key(0, 1))
    assert starts.branches.snapshot is None
    assert (collector.collect(policy, 0, 2).starts == INITIAL).all()


def test_a_draw_changes_nothing_and_can_be_repeated(simulator, policy):
    starts, collector = parts(simulator, policy, branch_fraction=0.5, selection="learned")
    starts.learn(collector.collect(policy, 0, 0), Key(0, 0))
    again = [collector.collect(policy, 0, 1) for _ in range(2)]
    for name, value in again[0].tensors().items():
        assert torch.equal(value, again[1].tensors()[name]), name


def test_failures_are_branched_where_predicted_success_was_lost(simulator, policy):
    _, collector = parts(simulator, policy, branch_fraction=0.5)
    rollout = collector.collect(policy, 0, 0)
    num, length = rollout.executed.shape[:2]
    outcome = torch.zeros(num)
    outcome[:2] = 1.0  # group 0 is mixed, the others all fail
    rollout = dataclasses.replace(rollout, outcome=outcome)
    predicted = torch.full((num, length), 0.8)
    predicted[:, 4:] = 0.1  # lost by the decision before
    scores = divergence_scores(rollout, predicted)
    assert scores[2].argmax() == 3 and scores[2, 3] == pytest.approx(0.7)
    assert not scores[:2].any(), "successes have nothing to mend"
    assert not scores[3:].any(), "where all fail nothing tells where they would have parted"
    single = dataclasses.replace(rollout, num_groups=num, group_size=1, starts=None)
    assert divergence_scores(single, predicted)[3].argmax() == 3, "without groups, any failure"


def test_the_time_limit_is_no_place_where_failure_parted(simulator, policy):
    _, collector = parts(simulator, policy, branch_fraction=0.5)
    rollout = collector.collect(policy, 0, 0)
    num = len(rollout.outcome)
    every, none = torch.ones(num, dtype=torch.bool), torch.zeros(num, dtype=torch.bool)
    rollout = dataclasses.replace(rollout, outcome=torch.zeros(num), num_groups=num, group_size=1)
    predicted = torch.full(rollout.executed.shape[:2], 0.8)
    last = rollout.executed.any(dim=2).sum(dim=1) - 1
    assert not divergence_scores(
        dataclasses.replace(rollout, truncated=every, terminated=none), predicted
    ).any()
    scores = divergence_scores(
        dataclasses.replace(rollout, truncated=none, terminated=every), predicted
    )
    assert torch.equal(scores.argmax(dim=1), last), "but what ends it as a failure is"
    assert scores.amax(dim=1) == pytest.approx(0.8)


def test_the_best_moment_of_each_episode_is_chosen(simulator, policy):
    starts, collector = parts(simulator, policy, branch_fraction=1.0)
    rollout = collector.collect(policy, 0, 0)
    scores = torch.zeros(rollout.executed.shape[:2])
    scores[5, 3], scores[5, 2], scores[7, 0] = 0.9, 0.5, 1.0
    starts.branches.choose(rollout, scores, 4, Key(0))
    chosen = starts.branches.snapshot
    chunk = simulator.contract.chunk_size
    assert counts(chosen) == [3 * chunk], "an episode's first state is no branch"


# ------------------------------------------------------------------ selection


class Known:
    """Predicts success by where the cube lies: certain on one side, open on the other."""

    def predict(self, features):
        return (features[..., 0] > features[..., 0].median()).float() * 0.5


def test_states_whose_outcome_is_open_are_drawn_more_often(simulator, policy):
    starts, _ = parts(simulator, policy, selection="learned", candidates=6)
    starts.predictor = Known()
    likely = []
    for iteration in range(12):
        keys = [Key(0, iteration, group) for group in range(GROUPS)]
        drawn = starts.draw(keys, torch.arange(GROUPS) * MEMBERS)
        assert counts(drawn.snapshot) == [0] * GROUPS
        obs = simulator.restore(drawn.snapshot, range(GROUPS), range(GROUPS))
        every = [key._replace(member=i) for i in range(6) for key in keys]
        whole = []
        for start in range(0, len(every), simulator.num_envs):
            batch = every[start : start + simulator.num_envs]
            ids = range(len(batch))
            seen = simulator.reset(simulator.task.sample(batch), ids, batch)
            whole.append(policy.critic_features(seen))
        middle = [float(part[:, 0].median()) for part in whole]
        chosen = policy.critic_features(obs)[:, 0]
        likely.append(float((chosen > sum(middle) / len(middle)).float().mean()))
    assert sum(likely) / len(likely) > 0.75, "a draw by chance has 0.5"


def test_the_predictor_learns_who_succeeds(simulator, policy):
    starts, collector = parts(simulator, policy, selection="learned")
    errors = []
    for iteration in range(12):
        rollout = collector.collect(policy, 0, iteration)
        cube = policy.critic_features({n: v[:, 0] for n, v in rollout.obs.items()})[:, 0]
        outcome = (cube > cube.median()).float()
        rollout = dataclasses.replace(rollout, outcome=outcome)
        errors.append(starts.learn(rollout, Key(0, iteration))["outcome_prediction_error"])
    assert errors[-1] < 0.6 * errors[0]


def test_a_rollout_that_is_masked_as_a_whole_teaches_the_predictor_nothing(simulator, policy):
    settings = {"selection": "learned", "branch_fraction": 0.5, "branch_at": "divergence"}
    starts, collector = parts(simulator, policy, **settings)
    rollout = collector.collect(policy, 0, 0)
    bad = {name: torch.full_like(value, torch.nan) for name, value in rollout.obs.items()}
    before = {name: value.clone() for name, value in starts.predictor.state_dict().items()}
    metrics = starts.learn(dataclasses.replace(rollout, obs=bad), Key(0, 0))
    assert "outcome_prediction_error" not in metrics
    assert all(torch.equal(v, before[n]) for n, v in starts.predictor.state_dict().items())
    assert starts.branches.snapshot.num_rows > 0, "without predictions, at any moment"


# ------------------------------------------------------------------ curriculum


def test_the_curriculum_starts_near_the_end_and_moves_back(simulator, policy):
    starts, collector = parts(
        simulator, policy, curriculum_fraction=0.5, curriculum_demonstrations=3
    )
    starts.begin(0.1)
    lengths = starts.curriculum._lengths
    keys = [Key(0, 0, group) for group in range(GROUPS)]
    drawn = starts.draw(keys, torch.arange(GROUPS) * MEMBERS)
    assert drawn.kinds.tolist() == [INITIAL] * 2 + [DEMONSTRATION] * 2
    near = counts(drawn.snapshot.rows([2, 3]))
    assert min(near) >= min(lengths) - 0.1 * max(lengths) - 1
    rollout = collector.collect(policy, 0, 0)
    mastered = dataclasses.replace(rollout, outcome=torch.ones(GROUPS * MEMBERS))
    distances = [starts.learn(mastered, Key(0, i))["curriculum_distance"] for i in range(12)]
    assert distances[:3] == pytest.approx([0.2, 0.3, 0.4]) and distances[-1] == 1.0
    assert starts.curriculum.is_over
    assert not (collector.collect(policy, 0, 1).starts == DEMONSTRATION).any()


def test_the_demonstrator_finishes_from_every_start_of_the_curriculum(simulator, policy):
    """The states are exact: what the script had done from there, it does again."""
    starts, _ = parts(simulator, policy, curriculum_fraction=1.0, curriculum_demonstrations=4)
    starts.begin(0.0)
    starts.curriculum.distance = 0.9
    keys = [Key(0, 7, group) for group in range(GROUPS * MEMBERS)]
    simulator.restore(starts.curriculum.draw(keys), range(len(keys)))
    for _ in range(HORIZON):
        action = simulator.task.demonstrate(simulator.scene(), simulator.controller_state())
        result = simulator.step(action.float().unsqueeze(1))
    assert result.outcome.all()


def test_starts_that_are_not_mastered_stay(simulator, policy):
    curriculum = Curriculum(0.1, 0.7)
    assert not curriculum.observe(0.69) and curriculum.distance == pytest.approx(0.1)
    assert curriculum.observe(0.7) and curriculum.distance == pytest.approx(0.2)


# ------------------------------------------------------------------ state, and what is refused


def test_a_resumed_draw_is_the_same_bit_for_bit(simulator, policy):
    settings = {
        "branch_fraction": 0.25,
        "branch_at": "divergence",
        "curriculum_fraction": 0.25,
        "curriculum_demonstrations": 3,
        "selection": "learned",
    }
    starts, collector = parts(simulator, policy, **settings)
    starts.begin(0.1)
    rollout = collector.collect(policy, 0, 0)
    outcome = torch.zeros(GROUPS * MEMBERS)
    outcome[::MEMBERS] = 1.0
    starts.learn(dataclasses.replace(rollout, outcome=outcome), Key(0, 0))
    assert starts.branches.snapshot is not None
    other, resumed = parts(simulator, policy, **settings)
    other.load_state_dict({name: v.clone() for name, v in starts.state_dict().items()})
    rollouts = [each.collect(policy, 0, 1) for each in (collector, resumed)]
    for name, value in rollouts[0].tensors().items():
        assert torch.equal(value, rollouts[1].tensors()[name]), name
    assert rollouts[0].starts.tolist() == rollouts[1].starts.tolist()
    with pytest.raises(CheckpointError, match="distance"):
        other.load_state_dict(
            {k: v for k, v in starts.state_dict().items() if not k.endswith("distance")}
        )


@pytest.mark.parametrize("share", ["branch_fraction", "curriculum_fraction"])
def test_states_of_another_engine_are_not_taken_for_this_ones(simulator, policy, share):
    settings = {share: 1.0, "curriculum_demonstrations": 3}
    starts, collector = parts(simulator, policy, **settings)
    starts.begin(0.1)
    starts.learn(collector.collect(policy, 0, 0), Key(0, 0))
    state = starts.state_dict()
    task = PickPlace(PickPlaceConfig(horizon=HORIZON, robot="ur5e"))
    other = MujocoSimulator(task, GROUPS * MEMBERS, MujocoConfig(num_threads=1))
    resumed, collector = parts(other, policy, **settings)
    resumed.load_state_dict(state)
    with pytest.raises(SimulatorError, match="snapshot of engine 'mujoco"):
        collector.collect(policy, 0, 1)
    other.close()


def test_states_of_a_checkpoint_that_names_no_engine_are_this_ones(simulator, policy):
    starts, collector = parts(simulator, policy, branch_fraction=1.0)
    starts.learn(collector.collect(policy, 0, 0), Key(0, 0))
    state = {k: v for k, v in starts.state_dict().items() if not k.endswith("engine")}
    other, resumed = parts(simulator, policy, branch_fraction=1.0)
    other.load_state_dict(state)
    assert other.branches.snapshot.row_hashes() == starts.branches.snapshot.row_hashes()
    assert (resumed.collect(policy, 0, 1).starts == BRANCH).all()


def test_shares_beyond_the_whole_are_refused():
    with pytest.raises(ConfigurationError, match="branch_fraction"):
        StartConfig(branch_fraction=0.7, curriculum_fraction=0.5)


def test_several_ranks_are_refused(simulator, policy):
    ranks = Ranks()
    ranks.num = 2
    config = load_config(["starts.selection=learned"])
    with pytest.raises(ConfigurationError, match="2 ranks"):
        make_starts(config, simulator, policy, ranks)
    assert make_starts(load_config([]), simulator, policy, ranks).config.is_plain


def test_points_of_nothing_are_nothing():
    assert BranchPoints().state_dict() == {}
