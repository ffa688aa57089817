"""The queue of a study: killed at any moment and started again, it loses nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
from study_helpers import run, write_small

from grpo_ros.configuration import deciding_settings
from grpo_ros.errors import ExperimentError
from grpo_ros.experiments import run_queue
from grpo_ros.experiments.results import Results, collect
from grpo_ros.experiments.run_of_cell import env_steps_done, finished_run
from grpo_ros.experiments.run_queue import RunQueue, free_cores
from grpo_ros.experiments.study import load_study

pytestmark = pytest.mark.timeout(300)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def protocol(study: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "grpo_ros", "protocol", "--study", str(study)]
    return subprocess.Popen(
        [*command, "--output", str(output), *more],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def runs_under(output: Path) -> list[int]:
    """Processes that train into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"output={output}/" in path.read_text().replace("\0", " "):
                found.append(int(path.parent.name))
    return found


def wait_until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def metrics_of(cell, output: Path) -> str:
    return finished_run(cell, output).metrics.read_text()


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_results(tmp_path):
    study = write_small(tmp_path, 6000)
    output, cells = tmp_path / "killed", load_study(str(study)).cells()
    killed = protocol(study, output, "--workers", "1")
    wait_until(lambda: env_steps_done(cells[0], output) > 0)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    wait_until(lambda: not runs_under(output))  # they end with the queue, however it ends
    assert finished_run(cells[0], output) is None
    rest = protocol(study, output)
    said, _ = rest.communicate(timeout=250)
    assert rest.returncode == 0, said
    assert "2 of 2 runs; wrote" in said and "left" in said
    assert "resuming" in (output / "runs" / cells[0].name / "log").read_text()
    straight = tmp_path / "straight"
    assert RunQueue(cells[:1], straight, free_cores(1), lambda _: None).run()
    assert metrics_of(cells[0], output) == metrics_of(cells[0], straight)

    # What it left can be read, and nothing is run again.
    results = Results.read(output / "results.json")
    assert [run.arm for run in results.runs] == ["ppo", "grpo_8"] and not results.missing
    assert len(results.runs[0].outcomes) == 12 and results.runs[0].points
    assert (output / "report.html").stat().st_size > 1000
    again = protocol(study, output)
    said, _ = again.communicate(timeout=100)
    assert again.returncode == 0 and said.startswith("2 of 2 runs done"), said

    # What is asked for later is held against what was run before.
    later = protocol(study, output, "--phases", "2")
    said, _ = later.communicate(timeout=100)
    assert later.returncode == 0 and "1 of 1 runs; wrote" in said, said
    results = Results.read(output / "results.json")
    assert [run.arm for run in results.runs] == ["ppo", "grpo_8"]

    # A study moves with its results.json alone, and what is not asked for stays in it.
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(output / "results.json", moved)
    elsewhere = protocol(study, moved)
    said, _ = elsewhere.communicate(timeout=100)
    assert elsewhere.returncode == 0 and said.startswith("2 of 2 runs done"), said
    assert Results.read(moved / "results.json").runs == results.runs
    assert not (moved / "runs").exists()
    other = load_study(str(study)).narrowed(settings=["demonstrations.episodes=4"])
    kept = collect(other, other.cells(), moved, "")
    assert not kept.runs and kept.others == results.runs
    kept.write(moved / "results.json")
    found = collect(load_study(str(study)), cells, moved, results.command)
    assert found.runs == results.runs and not found.others


def test_one_interrupt_saves_all_runs_and_writes_what_there_is(tmp_path):
    study = write_small(tmp_path, 400_000)
    output, cells = tmp_path / "study", load_study(str(study)).cells()
    process = protocol(study, output)
    wait_until(
        lambda: all(env_steps_done(cell, output) > 0 for cell in cells[: len(free_cores(None))])
    )
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "0 of 2 runs; wrote" in said and not runs_under(output)
    (status,) = (output / "runs" / cells[0].name).glob("*/*/*/status.json")
    assert json.loads(status.read_text())["state"] == "stopped"
    assert len(Results.read(output / "results.json").missing) == 2


class Sleeping(RunQueue):
    """Its runs sleep, and take no notice of an interrupt; it is stopped as the second starts."""

    processes: ClassVar[list[subprocess.Popen[bytes]]] = []

    def _started(self, cell, core):
        deaf = "import signal, time; signal.signal(2, signal.SIG_IGN); print(); time.sleep(100)"
        process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
        assert process.stdout.readline()
        self.processes.append(process)
        if len(self.processes) == 2:
            self.stop()  # a signal may come at any moment
        return run_queue._Worker(cell, process, core, time.monotonic(), 0)


def test_a_stop_has_a_deadline_also_for_a_run_that_is_just_starting(tmp_path, monkeypatch):
    monkeypatch.setattr(run_queue, "STOP_S", 0.5)
    cells = load_study(str(write_small(tmp_path))).cells()
    queue, began_s = Sleeping(cells, tmp_path, (0, 1), lambda _: None), time.monotonic()
    assert not queue.run()
    assert time.monotonic() - began_s < 20.0
    assert [p.returncode for p in Sleeping.processes] == [-signal.SIGKILL] * 2
    assert not queue.failed and queue.progress() == "0 of 2 runs done"


def test_other_settings_are_other_runs(tmp_path):
    study = write_small(tmp_path, 400)
    cells = load_study(str(study)).cells()
    said = []
    assert RunQueue(cells[1:], tmp_path, free_cores(1), said.append).run()
    assert finished_run(cells[1], tmp_path) is not None
    changed = load_study(str(study)).narrowed(settings=["grpo.clip_low=0.1"]).cells()[1]
    assert finished_run(changed, tmp_path) is None
    assert env_steps_done(cells[1], tmp_path) >= 400 and env_steps_done(changed, tmp_path) == 0
    assert any("finished in" in line for line in said)


def test_a_run_that_fails_is_tried_again_and_then_reported(tmp_path):
    study = write_small(tmp_path, 400)
    text = study.read_text().replace("film=false", "mujoco.timestep_s=0.013")
    study.write_text(text)
    process = protocol(study, tmp_path / "study", "--phases", "1")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "to be tried again" in said and "failed with code 2" in said and "log" in said
    assert "0 of 1 runs; wrote" in said


def test_more_runs_at_a_time_than_cores_are_refused():
    with pytest.raises(ExperimentError, match="1 to"):
        free_cores(10_000)


def test_runs_judged_by_different_episodes_are_not_compared(tmp_path):
    """A task that has changed between two runs of a study: their pairs would be of no use."""
    study = load_study(str(write_small(tmp_path)))
    cells = study.cells()
    runs = [
        dataclasses.replace(
            run(cell.arm, 0, 40), heldout_sha256=found, config=deciding_settings(cell.config())
        )
        for cell, found in zip(cells, ("one", "another"), strict=True)
    ]
    Results(study, tuple(runs)).write(tmp_path / "results.json")
    with pytest.raises(ExperimentError, match=r"pick/ppo/seed_0 and pick/grpo_8/seed_0 were"):
        collect(study, cells, tmp_path, "")
    again = protocol(tmp_path / "small.yaml", tmp_path)
    assert "different episodes" in again.communicate(timeout=120)[0] and again.returncode == 2


def test_results_that_are_none_are_refused(tmp_path):
    path = tmp_path / "results.json"
    for text, message in (("{", "cannot be read"), ('{"schema": 9}', "schema 9"), ("[]", "None")):
        path.write_text(text)
        with pytest.raises(ExperimentError, match=message):
            Results.read(path)
    with pytest.raises(ExperimentError, match="cannot be read"):
        Results.read(tmp_path / "absent.json")
