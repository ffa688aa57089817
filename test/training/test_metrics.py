"""Metrics: each is defined, histograms have fixed bins, and collapse is told from convergence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from grpo_ros.algorithms.histograms import (
    ADVANTAGE_EDGES,
    SHARE_EDGES,
    edge_histogram,
    share_histogram,
)
from grpo_ros.configuration import load_config
from grpo_ros.training.collapse import WINDOW, CollapseAlarm
from grpo_ros.training.metric_definitions import BY_NAME, METRICS
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.run_directory import RunDirectory
from grpo_ros.training.run_record import RunRecord
from grpo_ros.training.trainer import Trainer

SMALL = (
    "collection.num_groups=6",
    "collection.group_size=4",
    "demonstrations.episodes=4",
    "behaviour_cloning.num_steps=60",
    "evaluation.every_iterations=50",
    "evaluation.episodes=8",
    "evaluation.final_episodes=8",
    "film=false",
)


class Alarms(TrainingObserver):
    """Keeps what the alarm said."""

    def __init__(self):
        self.said = []

    def on_alarm(self, reason):
        self.said.append(reason)


def train(output, *overrides, each_iteration=None):
    """Run to the end; return the lines of metrics.jsonl, and what the alarm said."""
    alarms = Alarms()
    trainer = Trainer(load_config([*SMALL, f"output={output}", *overrides]), observers=[alarms])
    if each_iteration is not None:
        alarms.on_iteration = lambda metrics, progress: each_iteration(trainer)
    trainer.run()
    lines = trainer.run_directory.metrics.read_text().splitlines()
    return [json.loads(line) for line in lines], alarms.said, trainer


# ------------------------------------------------------------------ definitions


@pytest.mark.parametrize(
    "chosen",
    [
        ("grpo.reference_kl_coefficient=0.1", "grpo.success_buffer=4"),
        ("algorithm=ppo",),
        ("algorithm=hybrid", "hybrid.mode=mix"),
        (
            "starts.branch_fraction=0.3",
            "starts.selection=learned",
            "starts.curriculum_fraction=0.3",
        ),
    ],
    ids=["grpo", "ppo", "hybrid", "starts"],
)
def test_every_metric_that_is_written_is_defined(tmp_path, chosen):
    lines, _, trainer = train(tmp_path, "collection.env_steps=3000", *chosen)
    written = {name for line in lines for name in line}
    assert written <= BY_NAME.keys(), written - BY_NAME.keys()
    last = lines[-1]
    rollouts = trainer.simulator.num_envs
    assert sum(last["reward_histogram"]) == rollouts
    assert len(last["reward_histogram"]) == len(SHARE_EDGES)
    assert last["reward_q05"] <= last["reward_q50"] <= last["reward_q95"]
    has_groups = chosen[0] != "algorithm=ppo"
    for name in ("zero_variance_fraction", "diversity", "group_success_histogram"):
        assert (name in last) == has_groups, "one rollout is no group"
    for name, value in last.items():
        values = value if isinstance(value, list) else [value]
        assert all(math.isfinite(v) for v in values), name


def test_each_is_defined_once_and_says_what_it_is():
    assert len(BY_NAME) == len(METRICS)
    assert all(len(metric.formula) > 4 and metric.group for metric in METRICS)


# ------------------------------------------------------------------ histograms


def test_shares_have_fixed_bins_and_one_for_all():
    values = torch.tensor([0.0, 0.05, 0.1, 0.3, 0.7, 0.95, 1.0, 1.0, torch.nan, 3.0])
    found = share_histogram(values)
    assert found.counts == (2, 1, 0, 1, 0, 0, 0, 1, 0, 1, 3)
    assert share_histogram(torch.zeros(0)).counts == (0,) * 11


def test_bins_between_edges_are_those_of_numpy():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = edge_histogram(values, ADVANTAGE_EDGES)
    expected, _ = np.histogram(values.clamp(-2.999, 2.999).numpy(), ADVANTAGE_EDGES)
    assert list(found.counts) == expected.tolist()


def test_tensorboard_holds_scalars_and_histograms(tmp_path):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard"
    )
    record = RunRecord(RunDirectory(tmp_path), TrainingObserver(), 100)
    values = torch.tensor([0.05, 0.5, 1.0, 1.0])
    metrics = {"iteration": 1, "env_steps": 40, "train_success": 0.5}
    timing = {"collect_s": 1.0, "update_s": 1.0}
    record.iteration(metrics, timing, {"reward_histogram": share_histogram(values)})
    record.close()
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.value for e in events.Scalars("train_success")] == [0.5]
    (histogram,) = events.Histograms("reward_histogram")
    assert histogram.step == 40 and histogram.histogram_value.num == 4
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["reward_histogram"] == list(share_histogram(values).counts)


def test_a_resumed_run_has_each_iteration_in_tensorboard_once(tmp_path):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard"
    )
    timing = {"collect_s": 1.0, "update_s": 1.0}
    for iterations in ([0, 1, 2, 3], [2, 3, 4]):  # killed after 3, its checkpoint being of 1
        record = RunRecord(RunDirectory(tmp_path), TrainingObserver(), 100)
        for i in iterations:
            record.iteration({"iteration": i, "env_steps": 10 * i}, timing)
        record.close()
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("iteration")] == [0, 10, 20, 30, 40]


def test_a_trainer_that_does_not_train_leaves_nothing_in_tensorboard(tmp_path):
    """As that of `grpo-ros export`."""
    trainer = Trainer(load_config([*SMALL, f"output={tmp_path}"]))
    trainer.run_record.close()
    trainer.simulator.close()
    assert not (trainer.run_directory.path / "tensorboard").exists()


# ------------------------------------------------------------------ the alarm


def healthy(i, num=40):
    return {
        "entropy": -0.2 - 0.01 * i,
        "diversity": 0.2 - 0.002 * i,
        "zero_variance_fraction": 0.3 + 0.01 * i,
        "train_success": 0.4 + 0.5 * i / num,
    }


def collapsing(i):
    return {
        "entropy": -0.2 - 0.2 * i,
        "diversity": 0.2 * 0.8**i,
        "zero_variance_fraction": min(1.0, 0.3 + 0.05 * i),
        "train_success": 0.4,
    }


def told(series):
    alarm = CollapseAlarm()
    return [bool(alarm.observe(metrics)) for metrics in series]


def test_collapse_raises_the_alarm_and_health_does_not():
    found = told([collapsing(i) for i in range(40)])
    assert not any(found[:15]) and all(found[25:])
    assert not any(told([healthy(i) for i in range(40)]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("entropy", -0.5),
        ("diversity", 0.19),
        ("zero_variance_fraction", 0.5),
        ("train_success", 0.97),
    ],
)
def test_each_sign_is_needed(name, value):
    assert not any(told([{**collapsing(i), name: value} for i in range(40)]))


def test_the_reason_has_the_figures_and_a_remedy():
    alarm = CollapseAlarm()
    reasons = [alarm.observe(collapsing(i)) for i in range(40)]
    assert "100%" in reasons[-1] and "nats" in reasons[-1] and "entropy bonus" in reasons[-1]


def test_nothing_is_said_without_groups():
    series = [{k: v for k, v in collapsing(i).items() if k != "diversity"} for i in range(40)]
    assert not any(told(series))


def test_iterations_without_groups_leave_the_alarm_as_it_was():
    """Of a hybrid whose critic judges, most have none."""
    alarm, said = CollapseAlarm(), []
    for i in range(40):
        said.append(alarm.observe(collapsing(i)))
        said.append(alarm.observe({"entropy": -1.0, "train_success": 0.4}))
    first = next(index for index, reason in enumerate(said) if reason)
    assert all(said[first:]), "it does not come and go"
    assert all(said[i] == said[i + 1] for i in range(0, len(said), 2))


@pytest.mark.parametrize("task", ["pick_place", "stack", "insert", "navigate"])
def test_a_healthy_run_of_every_task_raises_no_alarm(tmp_path, task):
    chosen = [f"task={task}", "behaviour_cloning.num_steps=200", "behaviour_cloning.batch_size=64"]
    stop = WINDOW + 3

    def until(trainer):
        if trainer.iteration >= stop:
            trainer.requests.stop()

    lines, said, _ = train(tmp_path, *chosen, each_iteration=until)
    assert len(lines) > WINDOW and not any(said)
    assert all(line.get("collapse_alarm", 0.0) == 0.0 for line in lines)


def test_a_planted_collapse_raises_it_and_a_resumed_run_still_knows(tmp_path):
    """Entropy is forced down: after each iteration there is less noise to explore with."""

    def quieter(trainer):
        if trainer.iteration >= 8:
            with torch.no_grad():
                trainer.policy.log_std.sub_(0.3)
        if trainer.iteration >= stop:
            trainer.requests.stop()

    forced = ("gaussian.minimum_std=0.001", "grpo.learning_rate=1e-5", "grpo.kl_target=0")
    stop = 26
    lines, said, trainer = train(tmp_path, *forced, each_iteration=quieter)
    assert said and "collapses" in said[0]
    assert lines[-1]["collapse_alarm"] == 1.0 and lines[3]["collapse_alarm"] == 0.0
    record = RunRecord(trainer.run_directory, TrainingObserver(), 100)
    record.resume()
    assert record._collapse.observe({**lines[-1], "entropy": lines[-1]["entropy"] - 0.5})
