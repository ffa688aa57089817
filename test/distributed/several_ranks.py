"""Runs a function in several real processes that talk by gloo, and shares out what they learn."""

from __future__ import annotations

import io
import os
import socket
import traceback

import torch
import torch.multiprocessing

from grpo_ros.distributed.process_ranks import ranks_from_environment

TIMEOUT_S = 90.0


def own_groups(rollout, ranks):
    """Return a rank's share of a rollout's groups."""
    groups = ranks.share(rollout.num_groups)
    return rollout.with_groups(range(groups.start, groups.stop))


def on_ranks(work, *arguments, num=2, timeout_s=400.0, rank_timeout_s=TIMEOUT_S):
    """Return what `work(ranks, *arguments)` gives on each rank, in rank order.

    A rank that raises gives its exception's text instead, as a str.
    """
    context = torch.multiprocessing.get_context("spawn")
    answers = context.Queue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(
            target=_rank, args=(rank_timeout_s, index, num, port, work, arguments, answers)
        )
        for index in range(num)
    ]
    for process in processes:
        process.start()
    try:
        sent = dict(answers.get(timeout=timeout_s) for _ in processes)
    finally:
        for process in processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
    return [torch.load(io.BytesIO(sent[index]), weights_only=True) for index in range(num)]


def _rank(rank_timeout_s, index, num, port, work, arguments, answers):
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(index),
        LOCAL_RANK=str(index),
        WORLD_SIZE=str(num),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    try:
        ranks = ranks_from_environment(rank_timeout_s)
        answer = work(ranks, *arguments)
        ranks.close()
    except Exception as problem:
        traceback.print_exc()
        answer = f"{type(problem).__name__}: {problem}"
    buffer = io.BytesIO()
    torch.save(answer, buffer)  # the tensors in a queue die with their process
    answers.put((index, buffer.getvalue()))
