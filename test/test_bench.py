"""The benches: what is asked for is run, and nothing is left running."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bench.__main__ as benches
from bench import isaac_lab, resume


def test_a_name_of_no_bench_is_answered_with_the_names_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def rows() -> Iterator[tuple[str, str, str]]:
        ran.append("update")
        yield "steps", "1", ""

    monkeypatch.setattr(benches, "BENCHES", {"update, 32 steps": rows, "images": rows})
    assert benches.main(["update", "udpate"]) == 2 and not ran
    said = capsys.readouterr().err
    assert "no bench has udpate in its name" in said and "update, 32 steps" in said
    assert benches.main(["update"]) == 0 and ran == ["update"]


@pytest.mark.parametrize(
    ("makes_a_run", "error"), [(False, RuntimeError), (True, subprocess.TimeoutExpired)]
)
def test_a_trainer_that_is_given_up_does_not_go_on_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, makes_a_run: bool, error: type[Exception]
) -> None:
    """It makes no run, or does not come to an end."""
    run = tmp_path / "run" / "pick_place" / "grpo" / "one"
    begin = f"mkdir -p {run} && touch {run}/status.json" if makes_a_run else ":"
    trainer, pid = tmp_path / "trainer", tmp_path / "pid"
    trainer.write_text(f"#!/bin/sh\n{begin}\necho $$ > {pid}\nexec sleep 60\n")
    trainer.chmod(0o755)
    monkeypatch.setattr(resume.sys, "executable", str(trainer))
    monkeypatch.setattr(resume, "DEADLINE_S", 3.0)
    with pytest.raises(error):
        resume.straight("grpo", tmp_path / "run")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_steps_that_a_frozen_environment_did_not_carry_out_are_not_counted() -> None:
    """Of four environments one is done after each step; the fifth finds none to step."""

    class Simulator:
        num_envs, num_steps = 4, 0
        task = SimpleNamespace(horizon=10, sample=lambda *_: None, demonstrate=lambda *_: ACTION)
        reset = scene = controller_state = staticmethod(lambda *_: None)

        def step(self, _: Any) -> Any:
            executed = torch.arange(4).view(4, 1) >= self.num_steps
            self.num_steps += 1
            return SimpleNamespace(executed=executed, outcome=torch.ones(4, dtype=torch.bool))

    ACTION = torch.zeros(4, 7)
    outcome, steps, seconds = isaac_lab._demonstrated(Simulator())  # type: ignore[arg-type]
    assert steps == [4 + 3, 2 + 1] and len(seconds) == 2 and bool(outcome.all())
