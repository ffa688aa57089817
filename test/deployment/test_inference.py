"""Inference beside the loop: slow, failing, forgotten and closing policies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from grpo_ros.deployment.inference import (
    InlineInference,
    ThreadedInference,
    infer_once,
)
from grpo_ros.errors import PolicyFileError

Obs = Mapping[str, np.ndarray[Any, Any]]
PATIENCE_S = 5.0
"""Of tests that expect an answer; none waits so long."""


def echo(obs: Obs) -> np.ndarray[Any, Any]:
    return obs["x"]


def asked(value: float) -> Obs:
    return {"x": np.full((1, 2, 1), value)}


class Gate:
    """A policy that answers only once it is let."""

    def __init__(self) -> None:
        self.may_answer = threading.Semaphore(0)
        self.began = threading.Semaphore(0)

    def __call__(self, obs: Obs) -> np.ndarray[Any, Any]:
        self.began.release()
        assert self.may_answer.acquire(timeout=PATIENCE_S)
        return obs["x"]


@pytest.fixture
def threaded() -> Iterator[Callable[[Any], ThreadedInference]]:
    made: list[ThreadedInference] = []

    def make(infer: Any) -> ThreadedInference:
        made.append(ThreadedInference(infer))
        return made[-1]

    yield make
    for inference in made:
        inference.close()


def test_an_answer_bears_the_tag_of_its_request_and_how_long_it_took(
    threaded: Callable[[Any], ThreadedInference],
) -> None:
    def slow(obs: Obs) -> np.ndarray[Any, Any]:
        time.sleep(0.02)
        return obs["x"]

    for inference in (threaded(slow), InlineInference(slow)):
        assert not inference.is_busy and inference.poll(0.0) is None
        inference.submit(7, asked(1.0))
        assert inference.is_busy
        answer = inference.poll(PATIENCE_S)
        assert answer is not None and answer.tag == 7 and answer.problem == ""
        assert answer.seconds >= 0.02
        assert answer.chunk is not None and (answer.chunk == 1.0).all()
        assert not inference.is_busy and inference.poll(0.0) is None


def test_a_slow_policy_does_not_hold_up_the_loop_longer_than_its_patience(
    threaded: Callable[[Any], ThreadedInference],
) -> None:
    policy = Gate()
    inference = threaded(policy)
    inference.submit(1, asked(1.0))
    began = time.perf_counter()
    assert inference.poll(0.0) is None
    assert inference.poll(0.05) is None
    assert 0.05 <= time.perf_counter() - began < 1.0
    assert inference.is_busy
    policy.may_answer.release()
    answer = inference.poll(PATIENCE_S)
    assert answer is not None and answer.tag == 1


@pytest.mark.parametrize(
    "problem",
    [RuntimeError("out of memory"), ValueError("bad"), KeyError("x"), PolicyFileError("no"),
     MemoryError("full")],
)  # fmt: skip
def test_a_policy_that_fails_answers_with_the_problem_and_lives_on(
    problem: Exception, threaded: Callable[[Any], ThreadedInference]
) -> None:
    failing = [True]

    def policy(obs: Obs) -> np.ndarray[Any, Any]:
        if failing[0]:
            raise problem
        return obs["x"]

    inference = threaded(policy)
    inference.submit(1, asked(1.0))
    answer = inference.poll(PATIENCE_S)
    assert answer is not None and answer.chunk is None
    assert type(problem).__name__ in answer.problem
    failing[0] = False
    inference.submit(2, asked(2.0))
    answer = inference.poll(PATIENCE_S)
    assert answer is not None and answer.tag == 2 and answer.chunk is not None


def test_whatever_a_policy_raises_is_an_answer_and_no_dead_thread(
    threaded: Callable[[Any], ThreadedInference],
) -> None:
    """Regression: an error of no expected type ended the thread, and with it all inference."""

    class Strange(Exception):
        pass

    def policy(obs: Obs) -> np.ndarray[Any, Any]:
        raise Strange("from a library")

    assert "Strange" in infer_once(policy, 0, asked(1.0)).problem
    inference = threaded(policy)
    for tag in range(2):
        inference.submit(tag, asked(1.0))
        answer = inference.poll(PATIENCE_S)
        assert answer is not None and answer.tag == tag and "Strange" in answer.problem


def test_what_was_asked_before_forget_is_never_answered(
    threaded: Callable[[Any], ThreadedInference],
) -> None:
    policy = Gate()
    inference = threaded(policy)
    inference.submit(1, asked(1.0))
    assert policy.began.acquire(timeout=PATIENCE_S)
    inference.forget()
    assert not inference.is_busy and inference.poll(0.0) is None
    inference.submit(2, asked(2.0))
    policy.may_answer.release(2)
    answer = inference.poll(PATIENCE_S)
    assert answer is not None and answer.tag == 2
    assert answer.chunk is not None and (answer.chunk == 2.0).all()
    assert inference.poll(0.05) is None


def test_a_request_that_was_forgotten_before_its_turn_is_not_run(
    threaded: Callable[[Any], ThreadedInference],
) -> None:
    policy = Gate()
    inference = threaded(policy)
    inference.submit(1, asked(1.0))
    assert policy.began.acquire(timeout=PATIENCE_S)
    inference.forget()
    inference.submit(2, asked(2.0))
    inference.forget()
    policy.may_answer.release(2)
    assert not policy.began.acquire(timeout=0.1)
    assert not inference.is_busy and inference.poll(0.0) is None


def test_an_answer_that_lay_ready_is_forgotten_too() -> None:
    inference = InlineInference(echo)
    inference.submit(1, asked(1.0))
    inference.forget()
    assert not inference.is_busy and inference.poll(0.0) is None


def test_closing_ends_the_thread_even_while_a_request_waits() -> None:
    policy = Gate()
    inference = ThreadedInference(policy)
    inference.submit(1, asked(1.0))
    assert policy.began.acquire(timeout=PATIENCE_S)
    inference.submit(2, asked(2.0))
    policy.may_answer.release(2)
    inference.close()
    assert not inference._thread.is_alive()
    inference.close()


def test_closing_does_not_wait_for_ever_for_a_policy_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("grpo_ros.deployment.inference.JOIN_S", 0.05)
    policy = Gate()
    inference = ThreadedInference(policy)
    inference.submit(1, asked(1.0))
    assert policy.began.acquire(timeout=PATIENCE_S)
    began = time.perf_counter()
    inference.close()
    assert time.perf_counter() - began < 1.0
    assert inference._thread.daemon
    policy.may_answer.release()


def test_answers_of_many_threads_of_requests_never_mix(
    threaded: Callable[[Any], ThreadedInference],
) -> None:
    """A request, then by turns an answer or a forget, five hundred times."""
    inference = threaded(echo)
    random = np.random.default_rng(0)
    for tag in range(500):
        inference.submit(tag, asked(float(tag)))
        if random.random() < 0.3:
            inference.forget()
            continue
        answer = inference.poll(PATIENCE_S)
        assert answer is not None and answer.tag == tag
        assert answer.chunk is not None and (answer.chunk == float(tag)).all()
