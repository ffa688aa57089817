"""No rank waits for ever for one that is gone or late."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from several_ranks import TIMEOUT_S, on_ranks

from grpo_ros.errors import RankError

ROOT = Path(__file__).parents[2]


def _one_leaves(ranks):
    if ranks.index == 1:
        raise ValueError("left")
    began = time.monotonic()
    with pytest.raises(RankError) as error:
        ranks.sum(torch.ones(1))
    return str(error.value), time.monotonic() - began


def test_a_rank_that_fails_ends_the_others_by_name():
    (waiting, seconds), failed = on_ranks(_one_leaves)
    assert failed == "ValueError: left"
    assert waiting.startswith("rank 0 of 2 lost the others in a reduction")
    assert seconds < TIMEOUT_S / 2


def _first_fails(ranks):
    def work():
        raise ValueError("no disk")

    return ranks.on_first(work)


def test_what_fails_on_the_first_rank_fails_on_all():
    first, second = on_ranks(_first_fails)
    assert first == "ValueError: no disk"
    assert second == "RankError: rank 0 failed: ValueError: no disk"


def _one_is_late(ranks):
    if ranks.index == 1:
        time.sleep(4.0)
        return "late"
    return ranks.sum(torch.ones(1))


def test_a_rank_that_is_late_ends_the_others_by_the_deadline():
    waiting, late = on_ranks(_one_is_late, rank_timeout_s=1.0)
    assert late == "late"
    assert "expected all of them within ranks.timeout_s = 1 s" in waiting


@pytest.mark.timeout(600)
def test_ctrl_c_stops_torchrun_once_with_a_checkpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = (
        "task=pick_place num_groups=2 group_size=2 demonstrations.episodes=0 env_steps=1000000 "
        "evaluation.episodes=2 evaluation.final_episodes=2 evaluation.every_iterations=1000 "
        "film=false"
    )
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-port", str(port), "-m", "grpo_ros", "train", *settings.split()),
            f"output={tmp_path}",
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_for_an_iteration(tmp_path / "latest" / "metrics.jsonl", process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, _ = process.communicate(timeout=100.0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert output.count("interrupted, resume with resume:=") == 1
    assert len(list((tmp_path / "latest" / "checkpoints").iterdir())) == 2


def _wait_for_an_iteration(metrics, process, timeout_s=400.0):
    deadline = time.monotonic() + timeout_s
    while not metrics.exists() or metrics.read_text().count("\n") < 2:  # the first is the start's
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"no iteration in {timeout_s} s"
        time.sleep(0.1)
