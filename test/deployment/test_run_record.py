"""What was done on a robot is on the disk as soon as it is done, or said not to be."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from deployment_fakes import make_contract

from grpo_ros.deployment.records import run_record
from grpo_ros.deployment.records.run_record import RecordWriter, RunRecord


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    policy = tmp_path / "policy.onnx"
    policy.write_bytes(b"as it was deployed")
    return RunRecord(policy, make_contract(), {"mode": "hardware"})


def run_once(record: RunRecord) -> None:
    record.begin()
    record.end("stopped on request", 12, {}, {})


def read(path: Path | None) -> dict[str, Any]:
    assert path is not None
    return dict(json.loads(path.read_text()))


def test_each_run_and_each_mark_is_in_one_file_at_once(record: RunRecord) -> None:
    """Regression: all was written when the server went down, and lost where it was killed."""
    writer = RecordWriter(record, pytest.fail)
    run_once(record)
    path = writer.write().result(10.0)
    assert [run["periods"] for run in read(path)["runs"]] == [12]
    record.mark(True, "operator")
    assert writer.write().result(10.0) == path  # comes after what the mark itself wrote
    assert read(path)["successes"] == 1
    run_once(record)
    assert writer.close() == path
    assert len(read(path)["runs"]) == 2
    assert list((record.policy.parent / "deployments").iterdir()) == [path]


def test_a_change_is_written_unasked(record: RunRecord) -> None:
    reports: list[Any] = []
    record.on_change = lambda: reports.append(record.report())
    run_once(record)
    record.end("a second time", 0, {}, {})
    record.mark(True, "operator")
    record.mark(False, "predicate")  # the operator's word stands
    assert [report["successes"] for report in reports] == [0, 1]
    assert RecordWriter(record, pytest.fail).write == record.on_change


def test_the_hash_is_that_of_the_policy_that_ran(record: RunRecord) -> None:
    """Regression: a policy that was exported again meanwhile got these runs."""
    record.policy.write_bytes(b"exported again")
    run_once(record)
    writer = RecordWriter(record, pytest.fail)
    expected = hashlib.sha256(b"as it was deployed").hexdigest()
    assert read(writer.write().result(10.0))["policy_sha256"] == expected
    record.policy.unlink()
    assert read(writer.close())["policy_sha256"] == expected


def test_what_cannot_be_written_is_told_and_tried_again(record: RunRecord) -> None:
    """Regression: it ended the cleanup half way. A file stands for a full disk here."""
    said: list[str] = []
    writer = RecordWriter(record, said.append)
    obstacle = record.policy.parent / "deployments"
    obstacle.write_text("not a folder")
    run_once(record)
    assert writer.write().result(10.0) is None
    assert len(said) == 2  # as the run ended, and now
    assert "record of 1 runs cannot be written" in said[0] and str(obstacle) in said[0]
    assert "make room" in said[0]
    obstacle.unlink()
    assert len(read(writer.close())["runs"]) == 1
    obstructed = RecordWriter(record, said.append)
    (record.policy.parent / "deployments").rename(record.policy.parent / "moved")
    obstacle.write_text("not a folder")
    assert obstructed.close() is None and len(said) == 3


def test_without_a_run_nothing_is_written(record: RunRecord) -> None:
    assert RecordWriter(record, pytest.fail).close() is None
    assert not (record.policy.parent / "deployments").exists()


def test_a_disk_that_does_not_answer_holds_nothing_up(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, said = threading.Event(), list[str]()
    monkeypatch.setattr(run_record, "write_json", lambda *_: answers.wait(10.0))
    monkeypatch.setattr(run_record, "CLOSE_S", 0.05)
    writer = RecordWriter(record, said.append)
    run_once(record)
    assert not writer.write().done()
    assert writer.close() is None
    assert "has not answered" in said[0]
    answers.set()
