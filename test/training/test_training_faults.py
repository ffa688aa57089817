"""Training faults: each ends as the table of docs/reference/training_faults.md says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from grpo_ros.configuration import load_config
from grpo_ros.errors import SimulatorError
from grpo_ros.training.checkpoint import load_checkpoint, newest_valid, save_checkpoint
from grpo_ros.training.collector import GroupCollector
from grpo_ros.training.command import run_training
from grpo_ros.training.observer import TrainingObserver
from grpo_ros.training.trainer import Trainer

pytestmark = pytest.mark.timeout(300)
SMALL = (
    "collection.num_groups=3",
    "collection.group_size=4",
    "collection.env_steps=4000",
    "demonstrations.episodes=4",
    "behaviour_cloning.num_steps=40",
    "algorithm.objectives=[score]",
    "evaluation.every_iterations=3",
    "evaluation.episodes=8",
    "evaluation.final_episodes=12",
    "checkpoint.every_iterations=1",
    "film=false",
)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def start(output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "grpo_ros", "train", *SMALL, f"output={output}", *more]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def only_run(output: Path) -> Path:
    (run,) = (path.parent for path in output.glob("pick_place/grpo/*/status.json"))
    return run


def wait_for_checkpoint(output: Path, number: int) -> None:
    deadline = time.monotonic() + 120.0
    while not list(output.glob(f"pick_place/grpo/*/checkpoints/{number:06d}/manifest.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ends_as_a_run_that_was_left_alone(output: Path, tmp_path: Path) -> None:
    """Resume, and compare with a run of the same settings without a fault."""
    rest = start(output)
    _, said = rest.communicate(timeout=200)
    assert rest.returncode == 0, said
    straight = start(tmp_path / "straight")
    assert straight.wait(200) == 0
    ends = []
    for folder in (output, tmp_path / "straight"):
        run = only_run(folder)
        _, state, _ = newest_valid(run / "checkpoints")
        ends.append((state["iteration"], (run / "metrics.jsonl").read_text()))
    assert ends[0] == ends[1]


def test_a_full_disk_ends_the_run_in_a_line_and_the_last_checkpoint_is_good(tmp_path):
    """From some moment on no file may grow past 2 kB: the system refuses every checkpoint."""
    output = tmp_path / "runs"
    process = start(output)
    wait_for_checkpoint(output, 2)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (2048, 2048))
    _, said = process.communicate(timeout=100)
    assert process.returncode == 2, said
    assert "not written" in said.strip().splitlines()[-1]
    assert "the previous checkpoint is intact" in said
    run = only_run(output)
    path, state, skipped = newest_valid(run / "checkpoints")
    assert state is not None and int(path.name) >= 2 and not skipped
    assert not list((run / "checkpoints").glob(".*")), "nothing half-written is left"
    ends_as_a_run_that_was_left_alone(output, tmp_path)


class Failing(TrainingObserver):
    """Makes the simulator throw in one iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration, self.trainer = iteration, None

    def on_iteration(self, metrics, progress) -> None:
        if metrics["iteration"] == self.iteration:

            def broken(chunk):
                raise SimulatorError("physics diverged in environments [3]")

            self.trainer.simulator.step = broken


def run_in_process(output: Path, *observers: TrainingObserver, more: Sequence[str] = ()):
    config = load_config([*SMALL, f"output={output}", *more])
    trainer = Trainer(config, observers=observers)
    for observer in observers:
        observer.trainer = trainer
    return trainer


def test_a_simulator_that_throws_ends_the_run_and_a_resume_goes_on(tmp_path):
    output = tmp_path / "a"
    trainer = run_in_process(output, Failing(3))
    with pytest.raises(SimulatorError, match="diverged in environments"):
        trainer.run()
    run = trainer.run_directory
    status = json.loads((run.path / "status.json").read_text())
    assert status["state"] == "failed" and "diverged" in status["error"]
    _, state, _ = newest_valid(run.checkpoints)
    assert state["iteration"] == 3
    resumed = run_in_process(output)
    assert resumed.run().state == "finished"
    straight = run_in_process(tmp_path / "b")
    straight.run()
    assert resumed.state_hash() == straight.state_hash()
    texts = [t.run_directory.metrics.read_text() for t in (resumed, straight)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_what_is_no_number_is_masked_counted_and_not_learned(tmp_path, algorithm):
    """Observations, rewards and log-likelihoods of some decisions are spoiled in every rollout."""
    trainer = run_in_process(tmp_path, more=[f"algorithm={algorithm}"])
    collect = trainer.collector.collect

    def spoiled(*args):
        rollout = collect(*args)
        obs = {name: value.clone() for name, value in rollout.obs.items()}
        next(iter(obs.values()))[1, 0] = torch.nan
        score, log_prob = rollout.score.clone(), rollout.sample.log_prob.clone()
        score[4], log_prob[7, 1] = torch.inf, torch.nan
        sample = dataclasses.replace(rollout.sample, log_prob=log_prob)
        return dataclasses.replace(rollout, obs=obs, score=score, sample=sample)

    trainer.collector.collect = spoiled
    assert trainer.run().state == "finished"
    lines = [json.loads(line) for line in trainer.run_directory.metrics.read_text().splitlines()]
    assert all(line["masked_rows"] > 0 for line in lines[1:])
    if algorithm == "grpo":
        assert all(line["masked_rewards"] == 1 for line in lines[1:])
    for value in trainer.policy.state_dict().values():
        assert torch.isfinite(value).all()
    for path in trainer.run_directory.checkpoints.iterdir():
        load_checkpoint(path)


def test_the_simulator_refuses_actions_that_are_no_numbers(tmp_path):
    trainer = run_in_process(tmp_path)
    trainer.collector.collect(trainer.policy, 0, 0)
    action_size = trainer.contract.action_size
    with pytest.raises(SimulatorError, match="finite"):
        trainer.simulator.step(torch.full((12, 4, action_size), torch.nan))
    trainer.simulator.close()


def test_two_members_with_one_key_are_refused_before_anything_is_learned(tmp_path):
    trainer = run_in_process(tmp_path)
    collector = trainer.collector

    class Twice(GroupCollector):
        def _groups(self, size):
            first = super()._groups(size)
            return [first[0]] * len(first)

    collector.__class__ = Twice
    with pytest.raises(SimulatorError, match="share a noise key"):
        collector.collect(trainer.policy, 0, 0)
    trainer.simulator.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_saves_and_ends_in_a_line(tmp_path, number):
    process = start(tmp_path, "collection.env_steps=1000000")
    wait_for_checkpoint(tmp_path, 1)
    process.send_signal(number)
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 130 and not errors.strip()
    assert said.strip().splitlines()[-1].startswith("interrupted, resume with")


def test_a_second_signal_ends_at_once(tmp_path):
    """While a long evaluation is under way the first signal waits for it, the second does not."""
    process = start(tmp_path, "evaluation.final_episodes=100000")
    deadline = time.monotonic() + 120.0
    while not list(tmp_path.glob("pick_place/grpo/*/heldout.npz")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(3.0)  # cloned; its start is measured on 100,000 episodes now
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.5)
    assert process.wait(10.0) == 130
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("is_saved", [True, False])
def test_an_end_at_once_says_what_can_be_gone_on_with(tmp_path, monkeypatch, capsys, is_saved):
    def killed(trainer):
        if is_saved:
            save_checkpoint(trainer.run_directory.checkpoints / "000001", {"iteration": 1})
        raise SystemExit(130)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(Trainer, "run", killed)
    try:
        assert run_training(load_config([*SMALL, f"output={tmp_path}"])) == 130
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr().err
    assert (f"resume with resume:={only_run(tmp_path)} (or resume:=auto)" in said) == is_saved
    assert ("before there was anything to save" in said) == (not is_saved)
