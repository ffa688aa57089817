"""A whole small run: what it writes, that it repeats, and that a resume continues it exactly."""

import json
from pathlib import Path

import pytest
import torch

from grpo_ros.configuration import load_config
from grpo_ros.errors import GrpoRosError, TrainingError
from grpo_ros.training.checkpoint import load_checkpoint
from grpo_ros.training.checkpoint_keeper import CheckpointKeeper
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.requests import Requests
from grpo_ros.training.run_directory import point_latest
from grpo_ros.training.trainer import Trainer

SMALL = (
    "collection.num_groups=3",
    "collection.group_size=4",
    "collection.env_steps=2000",
    "demonstrations.episodes=4",
    "behaviour_cloning.num_steps=60",
    "algorithm.objectives=[score]",
    "evaluation.every_iterations=2",
    "evaluation.episodes=8",
    "evaluation.final_episodes=12",
    "checkpoint.every_iterations=1",
    "film=false",
)


class StopAfter(TrainingObserver):
    """Asks the trainer to stop after an iteration."""

    def __init__(self, iteration):
        self.iteration, self.trainer = iteration, None

    def on_iteration(self, metrics, progress):
        if metrics["iteration"] == self.iteration:
            self.trainer.requests.stop()


def _run(output, *overrides, stop_after=None):
    observers = [] if stop_after is None else [StopAfter(stop_after)]
    config = load_config([*SMALL, f"output={output}", *overrides])
    trainer = Trainer(config, observers=observers)
    for observer in observers:
        observer.trainer = trainer
    return trainer.run(), trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    summary, trainer = _run(tmp_path_factory.mktemp("runs"))
    return summary, trainer


def test_a_run_leaves_everything_it_promises(finished):
    summary, trainer = finished
    run = trainer.run_directory
    assert summary.state == "finished"
    assert (Path(trainer.config.output) / "latest").resolve() == run.path.resolve()
    names = ("config.yaml", "contract.json", "status.json", "heldout.npz", "metrics.jsonl")
    for name in (*names, "timing.jsonl", "evaluation.json", "policy.onnx", "report.html"):
        assert (run.path / name).stat().st_size > 0, name
    evaluation = json.loads(run.evaluation.read_text())
    assert evaluation["episodes"] == 12 and evaluation["start"]["episodes"] == 12
    low, high = evaluation["wilson_95"]
    assert low <= evaluation["successes"] / 12 <= high
    assert evaluation["env_steps"] == trainer.env_steps >= 2000


@pytest.mark.parametrize(
    ("setting", "error"),
    [("mujoco.timestep_s=0.013", "time step"), ("group_size=1", "at least 2 rollouts from each")],
)
def test_a_start_that_fails_is_marked_and_the_latest_run_stays_the_one_that_trained(
    tmp_path, setting, error
):
    (tmp_path / "reach").mkdir()
    point_latest(tmp_path, tmp_path / "reach")
    with pytest.raises(GrpoRosError, match=error):
        _run(tmp_path, setting)
    (status,) = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/*/status.json")]
    assert status["state"] == "failed" and error in status["error"]
    assert (tmp_path / "latest").resolve() == tmp_path / "reach"


def test_metrics_hold_no_wall_clock_time(finished):
    _, trainer = finished
    for line in trainer.run_directory.metrics.read_text().splitlines():
        assert not [key for key in json.loads(line) if key.endswith("_s")]


@pytest.mark.parametrize(
    "chosen",
    [
        ("policy=gaussian",),
        ("policy=flow",),
        ("algorithm=ppo",),
        ("task=navigate", "task.randomisation.enabled=true"),
        ("algorithm=hybrid", "hybrid.patience=1"),
        ("starts.branch_fraction=0.4", "starts.branch_at=divergence", "starts.selection=learned"),
        ("starts.curriculum_fraction=0.7", "starts.curriculum_demonstrations=4"),
        ("grpo.success_buffer=4",),
    ],
    ids=[
        "gaussian",
        "flow",
        "ppo",
        "navigate",
        "hybrid",
        "branches",
        "curriculum",
        "success_buffer",
    ],
)
def test_a_stopped_and_resumed_run_equals_one_that_was_never_stopped(tmp_path, chosen):
    whole, straight = _run(tmp_path / "a", *chosen)
    part, first = _run(tmp_path / "b", *chosen, stop_after=1)
    assert part.state == "stopped" and first.iteration == 1
    rest, second = _run(tmp_path / "b", *chosen)
    assert rest.run == part.run and whole.state == rest.state == "finished"
    assert second.state_hash() == straight.state_hash()
    metrics = [t.run_directory.metrics.read_text() for t in (straight, second)]
    assert metrics[0] == metrics[1]


def test_a_finished_run_is_not_resumed(finished, tmp_path):
    summary, _ = finished
    with pytest.raises(TrainingError, match="is finished"):
        _run(tmp_path, f"resume={summary.run}")


def test_ppo_takes_as_many_rollouts_as_groups_have_each_from_a_state_of_its_own(tmp_path):
    grouped, single = (
        Trainer(load_config([*SMALL, f"output={tmp_path / name}", f"algorithm={name}"]))
        for name in ("grpo", "ppo")
    )
    for trainer, num_states in ((grouped, 3), (single, 12)):
        rollout = trainer._rollout(0)
        first = torch.cat([value[:, 0].flatten(1).double() for value in rollout.obs.values()], 1)
        assert len(rollout.outcome) == 12 and rollout.num_groups == num_states
        assert len(first.unique(dim=0)) == num_states
        trainer.simulator.close()


def test_success_that_is_measured_on_the_way_is_shown_to_nobody(tmp_path, monkeypatch):
    """What is shown is experience; the clone is measured on the curve's states meanwhile."""
    shown, measured = [], []
    measure = Trainer._clone_success

    def counted(trainer):
        before = len(shown)
        success = measure(trainer)
        measured.append(len(shown) - before)
        return success

    class Watching(TrainingObserver):
        def on_step(self, scene, period_s):
            shown.append(period_s)

    monkeypatch.setattr(Trainer, "_clone_success", counted)
    settings = ("behaviour_cloning.maximum_success=0.9", "collection.env_steps=1")
    config = load_config([*SMALL, f"output={tmp_path}", *settings])
    Trainer(config, observers=[Watching()]).run()
    assert measured == [0] and shown, "rollouts and demonstrations are shown"


def test_from_scratch_statistics_are_of_as_many_states_as_can_be_and_their_steps_count(tmp_path):
    config = load_config([*SMALL, f"output={tmp_path}", "demonstrations.episodes=0"])
    trainer = Trainer(config)
    collect, seen = trainer.collector.collect, []

    def watched(*arguments):
        seen.append(collect(*arguments))
        return seen[-1]

    trainer.collector.collect = watched
    summary = trainer.run()
    assert (seen[0].num_groups, seen[0].group_size) == (12, 1)
    assert all((each.num_groups, each.group_size) == (3, 4) for each in seen[1:])
    total = sum(each.num_env_steps for each in seen)
    assert summary.evaluation["env_steps"] == trainer.env_steps == total
    first = json.loads(trainer.run_directory.metrics.read_text().splitlines()[0])
    assert first["env_steps"] == seen[0].num_env_steps > 0


def test_the_reference_is_the_cloned_policy(tmp_path):
    _, begun = _run(tmp_path, "grpo.reference_kl_coefficient=0.1", "collection.env_steps=1")
    start = begun.algorithm.gradient.reference.state_dict()
    assert all(torch.isfinite(value).all() for value in start.values())
    cloned = begun.policy.state_dict()
    assert torch.equal(start["normaliser.minimum"], cloned["normaliser.minimum"])
    weights = [name for name, value in start.items() if value.dim() == 2]
    change = max(float((start[name] - cloned[name]).abs().max()) for name in weights)
    assert 0.0 < change < 0.1, "one iteration away from what was cloned"


def test_the_best_checkpoint_is_kept_beside_the_last_ones(tmp_path, monkeypatch):
    curve = (0.1, 0.4, 0.4, 0.3)  # by iteration
    offer = CheckpointKeeper.offer

    def made_up(keeper, success, state):
        offer(keeper, curve[state()["iteration"]], state)

    monkeypatch.setattr(CheckpointKeeper, "offer", made_up)
    _, trainer = _run(tmp_path / "a", "evaluation.every_iterations=1", stop_after=3)
    folder = trainer.run_directory.checkpoints
    numbered = sorted(path.name for path in folder.iterdir() if path.name.isdigit())
    assert numbered == ["000001", "000002", "000003"]
    state = load_checkpoint(folder / "best")
    assert state["best_success"] == 0.4 and state["iteration"] == 1, "the first of equals"
    _, none = _run(tmp_path / "b", "checkpoint.keep_best=false", "collection.env_steps=1")
    assert not (none.run_directory.checkpoints / "best").exists()


def test_a_run_that_reached_its_target_ends_so_after_a_resume_too(tmp_path, monkeypatch):
    def killed(trainer):
        raise KeyboardInterrupt

    reached = ("evaluation.target=0.0", "checkpoint.every_iterations=1000")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_finish", killed)
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, *reached)
    summary, trainer = _run(tmp_path, *reached, "resume=auto")
    assert summary.state == "finished" and trainer.iteration == trainer.env_steps == 0
    saved = load_checkpoint(Path(summary.files["checkpoint"]))
    assert saved["iteration"] == trainer.iteration, "the checkpoint is of what was measured"


def test_a_run_that_stops_at_its_target_is_saved_as_it_is(tmp_path, monkeypatch):
    curve = iter([0.1, 0.2, 0.9])
    evaluate_curve = Trainer._evaluate_curve

    def made_up(trainer):
        evaluate_curve(trainer)
        trainer._success = next(curve)

    monkeypatch.setattr(Trainer, "_evaluate_curve", made_up)
    settings = ("evaluation.target=0.9", "checkpoint.every_iterations=1000", "env_steps=9000")
    summary, trainer = _run(tmp_path, *settings)
    assert trainer.iteration == 4
    assert load_checkpoint(Path(summary.files["checkpoint"]))["iteration"] == 4


def test_a_request_that_was_given_up_does_not_disturb_the_end():
    requests = Requests()
    given_up, waiting = requests.checkpoint(), requests.export()
    given_up.cancel()
    requests.refuse_all(TrainingError("training has ended"))
    assert given_up.cancelled()
    assert isinstance(waiting.exception(timeout=1.0), TrainingError)
