"""The first signal stops cleanly, the same one twice counts once, a later one ends at once."""

import os
import signal
import time

import pytest

from grpo_ros import interrupts
from grpo_ros.interrupts import Interrupts


@pytest.fixture
def taken():
    """Interrupts whose handlers are undone in the end."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield Interrupts()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def _send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # a Python handler runs between two instructions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_calls_stop_and_its_repetition_does_not(taken, number):
    calls = []
    taken.attach(lambda: calls.append(1), can_keep=lambda: True)
    _send(number)
    _send(signal.SIGINT)
    assert calls == [1] and taken.has_come


def test_a_later_signal_ends_at_once(taken, monkeypatch):
    monkeypatch.setattr(interrupts, "SAME_S", 0.0)
    taken.attach(lambda: None, can_keep=lambda: True)
    _send(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        _send(signal.SIGTERM)
    assert end.value.code == 128 + signal.SIGTERM


def test_with_nothing_to_keep_the_first_signal_ends_at_once(taken):
    with pytest.raises(SystemExit) as end:
        _send(signal.SIGINT)
    assert end.value.code == 130


def test_signals_are_ignored_during_tear_down(taken):
    taken.ignore()
    _send(signal.SIGINT)
    _send(signal.SIGTERM)
