"""The protocol under a launch: its end is the launch's, and one Ctrl-C saves all runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("launch_ros")

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("launch_runner.py")
STUDY = """
title: Small
seeds: 1
settings:
  - film=false
  - collection.num_groups=2
  - collection.group_size=4
  - demonstrations.episodes=3
  - behaviour_cloning.num_steps=20
  - evaluation.episodes=8
  - evaluation.final_episodes=8
scenarios:
  pick: {task: pick_place, env_steps: 400}
arms:
  ppo: {settings: [algorithm=ppo]}
  grpo_8: {phase: 2}
"""
pytestmark = [pytest.mark.ros, pytest.mark.timeout(240)]


def launch(folder: Path, *words: str) -> subprocess.Popen[str]:
    path = folder / "small.yaml"
    path.write_text(STUDY)
    command = [sys.executable, str(RUNNER), str(ROOT / "launch" / "protocol.launch.py")]
    return subprocess.Popen(
        [*command, f"study:={path}", f"output:={folder / 'study'}", *words],
        env={**os.environ, "ROS_LOG_DIR": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_launched_study_ends_with_its_report_and_its_status(tmp_path):
    process = launch(tmp_path, "phases:=1")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert "1 of 1 runs; wrote" in said and (tmp_path / "study" / "report.html").is_file()
    process = launch(tmp_path, "phases:=7")
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "is in phases 7" in said


def test_one_interrupt_of_the_launch_saves_all_runs(tmp_path):
    process = launch(tmp_path, "settings:=collection.env_steps=400000")
    logs = tmp_path / "study" / "runs"
    deadline = time.monotonic() + 150.0
    while not any("iteration" in log.read_text() for log in logs.glob("*/*/*/log")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # launch forwards it once more
    said, _ = process.communicate(timeout=100)
    assert "of 2 runs; wrote" in said and "Traceback" not in said, said
    assert process.returncode in (0, 130), said
    saved = [log for log in logs.glob("*/*/*/log") if "interrupted, resume" in log.read_text()]
    assert saved
