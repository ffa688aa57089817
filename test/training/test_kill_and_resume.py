"""A learner that is killed at any instant and resumed ends as one that never was."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from bench.resume import SETTINGS, VARIANTS, random_kills

pytestmark = pytest.mark.timeout(600)


def test_five_random_kills_change_nothing():
    """`make bench-resume` makes fifty; the instants differ whenever the tests are run."""
    seed = random.SystemRandom().randrange(2**31)
    kills = random_kills(5, seed, ["grpo", "ppo", "starts"], jobs=2)
    assert len(kills) == 5
    assert all(kill.is_same for kill in kills), (seed, kills)


def test_a_kill_changes_nothing_in_isaac_lab():
    pytest.importorskip("isaaclab", reason="Isaac Lab is not installed: make isaaclab")
    seed = random.SystemRandom().randrange(2**31)
    (kill,) = random_kills(1, seed, ["isaaclab"])
    assert kill.is_same, (seed, kill)


def test_of_two_learners_in_one_folder_the_second_refuses(tmp_path):
    command = [sys.executable, "-m", "grpo_ros", "train", *SETTINGS, *VARIANTS["grpo"]]
    endless = [*command, "collection.env_steps=1000000", f"output={tmp_path}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(endless, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        for line in first.stdout:
            if line.startswith("iteration"):
                break
        (run,) = tmp_path.glob("pick_place/grpo/*")
        second = subprocess.run(
            [*endless, f"resume={run}"], capture_output=True, text=True, env=environment
        )
        assert second.returncode == 2
        assert f"held by process {first.pid}" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        assert first.poll() is None, "the first goes on"
    finally:
        first.terminate()
        first.communicate()
    assert first.returncode == 130
