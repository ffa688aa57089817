"""On a robot the outcome comes from the task's predicate or from the operator; the record says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from deploy_helpers import export_untrained  # noqa: E402
from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from fault_harness import ServedPolicy  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from played_robot import CUBE, GOAL, PlayedRobot, until  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.timeout(60)]


def records(server: ServedPolicy) -> list[dict[str, Any]]:
    """Take the server down; return what it wrote."""
    assert server.change(Transition.TRANSITION_DEACTIVATE)
    assert server.change(Transition.TRANSITION_CLEANUP)
    return written(server)


def written(server: ServedPolicy) -> list[dict[str, Any]]:
    """Return what it has written by now."""
    folder = Path(server.policy).parent / "deployments"
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_a_run_ends_where_the_predicate_holds_and_an_operator_marks_the_others(
    server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """A dry run: the policy is of the task itself, and no gripper's driver is played."""
    server.policy = export_untrained(tmp_path / "policy.onnx", horizon=10_000)
    robot.torques = dict.fromkeys(robot.robot.arm_joints, 0.0)
    robot.poses["cube"] = (*GOAL[:2], *CUBE[2:])
    server.activate(hardware=True, dry_run=True, judge=True)
    assert server.start().success
    server.says(DiagnosticStatus.OK, "the outcome is verified")
    robot.poses["cube"] = CUBE
    server.client.forget()
    assert server.start().success
    server.says(DiagnosticStatus.OK, "running")
    server.stop()
    mark = server.client.call(SetBool, "policy_server/mark_outcome", SetBool.Request(data=True))
    assert mark.message == "2 of 2 succeeded"
    until(lambda: [found["successes"] for found in written(server)] == [2], "the mark on the disk")
    (record,) = records(server)
    assert (record["mode"], record["successes"], record["episodes"]) == ("dry_run", 2, 2)
    first, second = record["runs"]
    assert (first["outcome_from"], first["reason"]) == ("predicate", "the outcome is verified")
    assert (second["outcome_from"], second["reason"]) == ("operator", "stopped on request")
    assert first["periods"] > 0


def test_without_a_run_there_is_nothing_to_mark_and_nothing_is_written(
    server: ServedPolicy, robot: PlayedRobot
) -> None:
    before = len(list((Path(server.policy).parent / "deployments").glob("*.json")))
    robot.torques = dict.fromkeys(robot.robot.arm_joints, 0.0)
    server.activate(hardware=True)
    mark = server.client.call(SetBool, "policy_server/mark_outcome", SetBool.Request(data=True))
    assert not mark.success and "no run to mark" in mark.message
    assert len(records(server)) == before


def test_a_record_that_cannot_be_written_is_told_and_keeps_nothing_from_going_down(
    server: ServedPolicy, robot: PlayedRobot, tmp_path: Path
) -> None:
    """Regression: the cleanup failed half way, with its output and inference gone already."""
    server.policy = export_untrained(tmp_path / "policy.onnx", horizon=10_000)
    (tmp_path / "deployments").write_text("a file, where a folder is wanted")
    robot.torques = dict.fromkeys(robot.robot.arm_joints, 0.0)
    server.activate(hardware=True, dry_run=True)
    until(lambda: server.start().success, "a start: the torques are heard")
    server.stop()
    until(lambda: "the record of 1 runs cannot be written" in server.process.output, "the reason")
    assert records(server) == []
    assert server.configure(hardware=True, dry_run=True)
